"""Which images show one source, and which sources are divided between splits, classes or names."""

import collections

import numpy as np


def find_sources(*columns: np.ndarray) -> np.ndarray:
    """Returns the source of each image, as the position of its first image: int [n].

    Images show one source if they have the same value in one of the columns, or if other images
    connect them.

    Args:
        columns: what images of one source share, such as families and hashes of pixels, each [n].
    """
    links = []
    for column in columns:
        _, first, member = np.unique(column, return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(len(column)), first[member]], axis=1))
    return connected(np.concatenate(links), len(columns[0]))


def connected(links: np.ndarray, count: int) -> np.ndarray:
    """Returns the smallest position that each of ``count`` items is connected with, int [count].

    Args:
        links: pairs of positions, int [m, 2].
        count: number of items.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(links), np.bool_)
    graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    member = connected_components(graph, directed=False)[1] if count else np.zeros(0, np.intp)
    _, first = np.unique(member, return_index=True)
    smallest: np.ndarray = first[member]
    return smallest


def divided(unit: np.ndarray, value: np.ndarray) -> list[str]:
    """Returns the units that hold more than one value, "" left out.

    Args:
        unit: such as families or hashes of pixels, [n].
        value: such as splits or labels, [n].
    """
    pairs = set(zip(unit.tolist(), value.tolist(), strict=True))
    times = collections.Counter(one for one, _ in pairs if one != "")
    return [one for one, number in times.items() if number > 1]
