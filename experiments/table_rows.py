"""What the experiments that are tables share: their rows, of which get_config() takes one."""

from collections.abc import Collection, Mapping

NATIVE = "_native"


def with_native(names: Mapping[str, str]) -> dict[str, str]:
    """Returns two rows per network: with the paper's input, and with its own (``_native``)."""
    return {
        row: title
        for key, name in names.items()
        for row, title in ((key, name), (key + NATIVE, f"{name}, native input"))
    }


def check_row(row: str, rows: Collection[str]) -> None:
    """Checks that a table has a row.

    Raises:
        ValueError: it has not; names those it has.
    """
    if row not in rows:
        raise ValueError(f"expected a row out of {', '.join(rows)}; got {row!r}")


def network_and_input(row: str, rows: Collection[str]) -> tuple[str, str]:
    """Returns a row's network, and how its images are preprocessed: "paper" or "native".

    Raises:
        ValueError: see :func:`check_row`.
    """
    check_row(row, rows)
    return row.removesuffix(NATIVE), "native" if row.endswith(NATIVE) else "paper"
