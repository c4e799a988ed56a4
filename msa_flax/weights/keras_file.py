"""Reads any Keras weights file as ``{"layer/variable": array}``, with the names of Keras 3.

There are three layouts. Legacy HDF5 (``.h5``) stores each variable under its name; the file of a
whole model keeps them in the group ``model_weights``. The ``.weights.h5`` of Keras 3 numbers the
variables, under the class of their layer and a counter: ``layers/conv2d_4/vars/0``. The name of the
layer is in an attribute, which older files lack. ``.keras`` is a zip file with such a file and the
configuration of the model. Nothing is ever unpickled, and no link out of the file is followed.
"""

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from msa_flax.files import UserError

# Of the tensors of one file: a small file may declare shapes that fill the memory.
MAX_BYTES = 4 * 2**30

Layers = Iterable[tuple[str, str]]  # (class, name) of each, in the order of Keras' model.layers

# The variables of each class of layer, in the order in which Keras numbers them. Where some are
# absent, only a bias after a kernel is certain: a BatchNorm of three could lack gamma or beta.
_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "layer_scale": ("gamma",),
    "normalization": ("mean", "variance", "count"),
}
_CONTAINERS = {"layers", "_layer_checkpoint_dependencies", "_self_tracked_trackables"}
# What Keras keeps beside the weights for training.
_STATE = re.compile(r"(optimizer|metrics)/(.+/)?vars/\d+|(.+/)?seed_generator/vars/\d+")

# What h5py, zipfile and json raise for damaged files, depending on where the damage is.
_DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


class WeightsError(UserError):
    """Weights cannot be read or do not fit; the message lists every reason."""


def read(path: str | Path, *, layers: Layers = ()) -> dict[str, np.ndarray]:
    """Reads the tensors of a Keras weights or model file, whatever its layout.

    Nested models are flattened: ``mobilenet_1.00_224/conv1/kernel`` becomes ``conv1/kernel`` unless
    two tensors would share that name. The ``depthwise_kernel`` of Keras 2 is called ``kernel``, as
    in Keras 3. Variables of classes of layers that are unknown here keep their number
    (``my_layer/0``).

    Args:
        path: a ``.h5``, ``.weights.h5`` or ``.keras`` file, recognised by its content.
        layers: the layers of the network, for a ``.weights.h5`` that holds no names.

    Returns:
        Keras name to float32 array in the layout of Keras, in sorted order.

    Raises:
        WeightsError: not a Keras file, truncated, empty, or not safe to read; one sentence.
    """
    path = Path(path)
    try:
        names = _group_names(layers)
        source: Any = path
        if _kind(path) == "zip":
            source, names = _unzip(path)
        with h5py.File(source, "r") as file:
            arrays = _tensors(file, names)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: the file cannot be read, is it whole? ({reason})") from error
    if not arrays:
        raise WeightsError(f"{path}: expected Keras weights, found an HDF5 file without tensors")
    return arrays


def tensors_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns a SHA-256 of the tensors that does not depend on the file they came from.

    Each tensor, in the order of the names, adds its name, its shape and its values as little-endian
    float32.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        digest.update(f"{name} {'x'.join(map(str, array.shape))}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _kind(path: Path) -> str:
    """Returns "hdf5" or "zip"; refuses anything else, and says what it is."""
    if not path.is_file():
        raise WeightsError("expected a Keras weights file, found no such file")
    with path.open("rb") as file:
        head = file.read(8)
    if zipfile.is_zipfile(path):
        return "zip"
    if h5py.is_hdf5(path):
        return "hdf5"
    found = "something else"
    if not head:
        found = "an empty file"
    elif head.startswith(b"\x93NUMPY"):
        found = "a NumPy file"
    elif head.startswith(b"\x80") or path.suffix in (".pkl", ".pickle"):
        found = "a Python pickle"
    elif head.startswith(b"PK"):
        found = "a truncated zip file"
    raise WeightsError(
        f"expected a Keras weights file (.h5, .weights.h5 or .keras), found {found}; "
        "write one with Keras' model.save_weights('name.weights.h5')"
    )


def _unzip(path: Path) -> tuple[io.BytesIO, dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info.file_size for info in archive.infolist()}
        if "model.weights.h5" not in members:
            kind = "a NumPy archive" if any(m.endswith(".npy") for m in members) else "another zip"
            raise WeightsError(
                f"expected a .keras file with model.weights.h5 inside, found {kind}; "
                "write one with Keras' model.save('name.keras')"
            )
        if sum(members.values()) > MAX_BYTES:
            raise WeightsError(f"expected at most {MAX_BYTES} bytes in the archive, found more")
        config = json.loads(archive.read("config.json")) if "config.json" in members else {}
        return io.BytesIO(archive.read("model.weights.h5")), _group_names(_config_layers(config))


def _config_layers(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (class, name) of each layer; inside a nested model the class follows its group."""
    counts: Counter[str] = Counter()
    for layer in config.get("config", {}).get("layers", ()):
        group = _snake_case(layer["class_name"])
        nested = f"{prefix}{group}{f'_{counts[group]}' if counts[group] else ''}/"
        counts[group] += 1
        yield prefix + group, layer["config"]["name"]
        yield from _config_layers(layer, nested)


def _group_names(layers: Layers) -> dict[str, str]:
    """Returns ``{"conv2d_1": layer name}``: the groups that Keras names by class and counter."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for class_name, layer_name in layers:
        parent, _, group = class_name.rpartition("/")
        key = f"{parent}/{_snake_case(group)}".lstrip("/")
        names[f"{key}_{counts[key]}" if counts[key] else key] = layer_name
        counts[key] += 1
    return names


def _snake_case(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _tensors(file: h5py.File, names: dict[str, str]) -> dict[str, np.ndarray]:
    prefix = "model_weights/" if "model_weights" in file else ""  # else optimizer_weights follow
    found = {
        path.removeprefix(prefix): dataset
        for path, dataset in _walk(file)
        if path.startswith(prefix) and not _STATE.fullmatch(path)
    }
    root = file[prefix or "/"]
    total = sum(dataset.nbytes for dataset in found.values())
    if total > MAX_BYTES:
        raise WeightsError(f"expected at most {MAX_BYTES} bytes of tensors, found {total}")
    long = {path: _variable_path(root, path, names) for path in found}
    short = {path: "/".join(parts[-2:]) for path, parts in long.items()}
    count = Counter(short.values())
    arrays = {
        short[path] if count[short[path]] == 1 else "/".join(long[path]): _float32(found[path])
        for path in found
    }
    if len(arrays) != len(found):
        raise WeightsError("expected distinct names, found two tensors with one name")
    return dict(sorted(arrays.items()))


def _walk(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields (path, data set); refuses everything that would read outside this file."""
    for name in group:
        path = prefix + name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise WeightsError(f"expected plain HDF5, found a link at {path}; it is not followed")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _walk(item, f"{path}/")
        elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
            raise WeightsError(f"expected plain HDF5, found something else at {path}")
        else:
            yield path, item


def _variable_path(root: h5py.Group, path: str, names: dict[str, str]) -> list[str]:
    """Returns the components of a variable's Keras name, the outermost model first."""
    parts = path.split("/")
    if len(parts) > 1 and parts[-2] == "vars":
        return _numbered_path(root, parts, names)
    *scope, variable = [part.split(":")[0] for part in parts]  # Keras 2 writes "kernel:0"
    if not scope:
        raise WeightsError(f"expected layer/variable, found a tensor without a layer: {path}")
    # TensorFlow 1 made scopes unique, so that the layer conv1 could hold conv1_2/kernel.
    if len(scope) > 1 and re.fullmatch(re.escape(scope[0]) + r"_\d+", scope[-1]):
        siblings = {key for key in root[parts[0]] if isinstance(root[parts[0]][key], h5py.Group)}
        scope = scope[:1] if len(siblings) == 1 else scope
    separable = variable == "depthwise_kernel" and any(
        key.startswith("pointwise_kernel") for key in root["/".join(parts[:-1])]
    )
    return [*scope, "kernel" if variable == "depthwise_kernel" and not separable else variable]


def _numbered_path(root: h5py.Group, parts: list[str], names: dict[str, str]) -> list[str]:
    """Returns the components of a path such as ``layers/conv2d_4/vars/0``, with real names."""
    scope: list[str] = []
    groups = [part for part in parts[:-2] if part not in _CONTAINERS]
    for depth in range(1, len(parts) - 1):
        if parts[depth - 1] in _CONTAINERS:
            continue
        group = root["/".join(parts[:depth])]
        stored = group["vars"].attrs.get("name") if "vars" in group else None
        name = stored or names.get("/".join(groups[: len(scope) + 1]))
        if name is None:
            raise WeightsError(
                f"expected the name of the layer {'/'.join(parts[:depth])}, the file holds none "
                "(older Keras versions wrote such files); save the model as .keras or .h5 instead"
            )
        scope.append(name.decode() if isinstance(name, bytes) else str(name))
    kind = re.sub(r"_\d+$", "", groups[-1]) if groups else ""
    variables = _VARIABLES.get(kind, ())
    count = len(root["/".join(parts[:-1])])
    known = count == len(variables) or (count < len(variables) and variables[0].endswith("kernel"))
    number = parts[-1]
    model = [] if scope else ["model"]  # a variable of the model itself has no layer
    return [*model, *scope, variables[int(number)] if known and number.isdigit() else number]


def _float32(dataset: h5py.Dataset) -> np.ndarray:
    if dataset.dtype.kind not in "fiu":
        raise WeightsError(
            f"expected numbers in {dataset.name}, found data of type {dataset.dtype}"
        )
    return np.asarray(dataset[()], dtype=np.float32)
