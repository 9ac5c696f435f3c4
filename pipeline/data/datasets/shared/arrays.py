"""Label maps saved as arrays: NumPy's .npy, and MATLAB's .mat as PASCAL-Context and COCO-Stuff 10k publish them."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from pipeline.data.datasets.shared.labels import LabelError, UnreadableError
from serving.images.decoding import MAX_PIXELS

_DAMAGED = (MatReadError, ValueError, TypeError, KeyError, IndexError, EOFError, zlib.error, MemoryError, OverflowError)


def read_matlab_label(path: Path, variable: str | None, content: bytes | None = None) -> NDArray[np.integer]:
    """Read the label map `variable` of a MATLAB file (version 5 to 7.2).

    Args:
        path: the file.
        variable: its name; None takes the only variable that may be a label map.
        content: the file's bytes where they are known.

    Returns:
        `[H,W]` whole numbers.

    Raises:
        UnreadableError: truncated, not a MATLAB file, or not accessible.
        LabelError: a MATLAB 7.3 file, or one without such a label map, or with several.
    """
    try:
        file = io.BytesIO(path.read_bytes() if content is None else content)
        shapes = {name: shape for name, shape, _ in whosmat(file)}
        name = _only_map(shapes, path) if variable is None else variable
        if name in shapes:  # looked at before it is unpacked: a small file can hold a huge array of zeros
            _require_size(shapes[name], path)
        file.seek(0)
        label = loadmat(file, variable_names=[name]).get(name)
    except NotImplementedError as error:  # scipy's word for the HDF5 format
        raise LabelError(f"{path}: a MATLAB 7.3 file; expected an older format, as in the dataset's release") from error
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise UnreadableError(f"{path}: not a readable MATLAB file ({error})") from error
    if label is None:
        raise LabelError(f"{path}: no variable {name!r} in it; expected the label map")
    return _whole(label, f"{path}: {name!r}")


def read_numpy_label(path: Path, content: bytes | None = None) -> NDArray[np.integer]:
    """Read a label map that `numpy.save` wrote. Nothing in the file is run, and nothing is unpickled.

    Returns:
        `[H,W]` whole numbers; truth values are 0 and 1.

    Raises:
        UnreadableError: truncated, not a .npy file, or not accessible.
        LabelError: not one label map of whole numbers.
    """
    try:
        file = io.BytesIO(path.read_bytes() if content is None else content)
        version = npy.read_magic(file)
        header: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
        _require_size(shape, path)
        if dtype.hasobject:
            raise LabelError(f"{path}: an array of Python objects; expected whole label ids")
        file.seek(0)
        label = np.load(file, allow_pickle=False)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise UnreadableError(f"{path}: not a readable .npy file ({error})") from error
    return _whole(label, str(path))


def _only_map(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    maps = [name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1]
    if len(maps) != 1:
        found = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()) or "nothing"
        raise LabelError(
            f"{path}: expected one variable that is a label map, found {found}; name it: "
            "prepare.options.mat_variable: NAME"
        )
    return maps[0]


def _require_size(shape: tuple[int, ...], path: Path) -> None:
    count = 1
    for side in shape:
        count *= side
    if count > MAX_PIXELS:
        raise LabelError(f"{path}: {'x'.join(map(str, shape))} values; at most {MAX_PIXELS} are read")


def _whole(label: NDArray[Any], what: str) -> NDArray[np.integer]:
    if label.ndim == 3 and 1 in (label.shape[0], label.shape[2]):  # [1,H,W] and [H,W,1], as some tools save them
        label = label[0] if label.shape[0] == 1 else label[:, :, 0]
    if label.dtype == np.bool_:
        return label.astype(np.uint8) if label.ndim == 2 else _refuse(label, what)
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.number) or np.issubdtype(label.dtype, np.complexfloating):
        return _refuse(label, what)
    if label.dtype == np.uint8:
        return label
    whole: NDArray[np.integer] = np.nan_to_num(label, nan=-1).clip(-1, 1 << 30).astype(np.int32)
    strange = label[whole != label]  # MATLAB saves numbers as doubles unless told otherwise
    if len(strange):
        if np.isnan(strange).any():
            raise LabelError(f"{what} holds NaN; expected whole label ids, such as 255 for pixels that have none")
        kind = "fractions" if (strange != np.floor(strange)).any() else f"{strange[0]}"
        raise LabelError(f"{what} holds {kind}; expected whole label ids")
    return whole


def _refuse(label: NDArray[Any], what: str) -> NDArray[np.integer]:
    raise LabelError(f"{what} is {label.dtype} of shape {label.shape}; expected whole numbers, HxW")
