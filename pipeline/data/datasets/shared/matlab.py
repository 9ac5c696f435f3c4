"""Label maps in MATLAB files, as PASCAL-Context and COCO-Stuff 10k publish them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from pipeline.data.datasets.shared.labels import LabelError, UnreadableError


def read_matlab_label(path: Path, variable: str) -> NDArray[np.integer]:
    """Read the label map `variable` of a MATLAB file (version 5 to 7.2).

    Returns:
        `[H,W]` whole numbers.

    Raises:
        UnreadableError: truncated, not a MATLAB file, or not accessible.
        LabelError: a MATLAB 7.3 file, or one without such a label map.
    """
    try:
        content = loadmat(path, variable_names=[variable])
    except NotImplementedError as error:  # scipy's word for the HDF5 format
        raise LabelError(f"{path}: a MATLAB 7.3 file; expected an older format, as in the dataset's release") from error
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}") from error
    except (MatReadError, ValueError, TypeError, KeyError, EOFError, zlib.error) as error:
        raise UnreadableError(f"{path}: not a readable MATLAB file ({error})") from error
    label = content.get(variable)
    if label is None:
        raise LabelError(f"{path}: no variable {variable!r} in it; expected the label map")
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.number) or np.issubdtype(label.dtype, np.complexfloating):
        raise LabelError(f"{path}: {variable!r} is {label.dtype} of shape {label.shape}; expected whole numbers, HxW")
    whole: NDArray[np.integer] = label.astype(np.int32)
    if (whole != label).any():  # MATLAB saves numbers as doubles unless told otherwise
        raise LabelError(f"{path}: {variable!r} holds fractions; expected whole label ids")
    return whole
