"""NNCF's post-training quantisation of the graph that our own INT8 starts from."""

from __future__ import annotations

import importlib
import io
import logging
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

from onnx import ModelProto

from export.artifacts.onnx_int8.calibration import CalibrationImages
from export.graph.deploy import INPUT_NAME
from export.graph.passes import anonymise
from serving.contract.errors import UserError

VERSION = "3.4.0"  # that was tried


@dataclass(frozen=True)
class NncfOptions:
    """How NNCF quantises.

    Attributes:
        preset: `performance` puts zero in the middle of every range, `mixed` of those of weights alone.
        overflow_fix: weights in 7 bits, for CPUs without VNNI; as our `reduce_range`.
        fast_bias_correction: biases corrected by the means of activations alone; else layer by layer, over the
            calibration images.
    """

    preset: Literal["performance", "mixed"] = "performance"
    overflow_fix: bool = False
    fast_bias_correction: bool = True


def import_nncf() -> Any:
    """NNCF, which tells nothing but errors.

    Raises:
        UserError: it is not installed.
    """
    try:
        nncf: Any = importlib.import_module("nncf")
    except ImportError as error:
        raise UserError(f"NNCF is not installed ({error}); pip install -c constraints.txt nncf=={VERSION}") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def quantise(model: ModelProto, images: CalibrationImages, options: NncfOptions) -> ModelProto:
    """A graph in INT8.

    Args:
        model: in single precision; left as it is.
        images: the same as of our own quantisation.
        options: how.

    Raises:
        UserError: NNCF is not installed.
    """
    nncf = import_nncf()
    advanced = importlib.import_module("nncf.quantization.advanced_parameters")
    fix = advanced.OverflowFix.ENABLE if options.overflow_fix else advanced.OverflowFix.DISABLE
    source = ModelProto()
    source.CopyFrom(model)
    batches = list(images.batches(images.calibration))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress bars
        quantised: ModelProto = nncf.quantize(
            source,
            nncf.Dataset(batches, lambda batch: {INPUT_NAME: batch}),
            preset=nncf.QuantizationPreset[options.preset.upper()],
            subset_size=len(batches),
            fast_bias_correction=options.fast_bias_correction,
            advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=fix),
        )
    anonymise(quantised)
    return quantised
