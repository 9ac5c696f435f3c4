"""The argmax of an engine, in a form that OpenVINO computes faster."""

from __future__ import annotations

from typing import Any

import numpy as np


def flatten_argmax(openvino: Any, model: Any) -> int:
    """Let every argmax over the channels of `[B,C,h,w]` run on `[B,C,h*w]`, with the same indices, ties included.

    OpenVINO keeps images with the channels last, and there its TopK, which an ArgMax becomes, takes a third of an INT8
    network's time. Of a tensor with three dimensions the channels stay second, where it is several times as fast.

    The three sizes of the mask are gathered at once on purpose. Joined from single ones by a Concat, they made OpenVINO
    (2026.4.1) compute the first convolution of an INT8 network wrong: docs/engines.md.

    Args:
        openvino: the library.
        model: an `openvino.Model`, changed in place.

    Returns:
        How many there were.
    """
    ops, flattened = openvino.opset13, 0
    for node in model.get_ordered_ops():
        squeeze = _argmax_over_channels(node)
        if squeeze is None:
            continue
        logits, given = node.input_value(0), node.get_attributes()
        flat = ops.reshape(logits, np.array([0, 0, -1], np.int64), special_zero=True)
        largest = ops.topk(
            flat, node.input_value(1), 1, given["mode"], given["sort"], given["index_element_type"], given["stable"]
        )
        sizes = ops.gather(ops.shape_of(logits), np.array([0, 2, 3], np.int64), np.int64(0))
        indices = ops.reshape(largest.output(1), sizes, special_zero=False)
        for reader in list(squeeze.output(0).get_target_inputs()):
            reader.replace_source_output(indices.output(0))
        flattened += 1
    return flattened


def _argmax_over_channels(node: Any) -> Any | None:
    """The node behind `node` that takes the channels away, where `node` finds the largest one's index and no more."""
    if node.get_type_name() != "TopK" or node.output(0).get_target_inputs():
        return None
    rank, depth = node.input_value(0).get_partial_shape().rank, node.input_value(1).get_node()
    if rank.is_dynamic or rank.get_length() != 4 or node.get_attributes()["axis"] != 1:
        return None
    if depth.get_type_name() != "Constant" or int(depth.data.item()) != 1:
        return None
    readers = [each.get_node() for each in node.output(1).get_target_inputs()]
    if len(readers) != 1 or readers[0].get_type_name() != "Squeeze":
        return None
    return readers[0] if readers[0].get_output_partial_shape(0).rank.get_length() == 3 else None
