"""The deploy graph in PyTorch is the segmentor between bytes and bytes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.checks.examination.images import scene
from export.graph.deploy import DeployGraph
from pipeline.models.network.segmentor import upsample


def images(count: int, height: int, width: int) -> Tensor:
    generator = np.random.default_rng(3)
    return torch.from_numpy(np.stack([scene(height, width, generator) for _ in range(count)]))


def test_it_is_normalise_run_upsample_argmax(segmentor):
    batch = images(2, 64, 96)
    with torch.inference_mode():
        mask = DeployGraph(segmentor)(batch)
        logits = upsample(segmentor(segmentor.normalise(batch.permute(0, 3, 1, 2))), (64, 96))
    assert mask.dtype == torch.uint8 and mask.shape == (2, 64, 96)
    assert torch.equal(mask, logits.argmax(dim=1).to(torch.uint8))
    assert len(mask.unique()) > 2, "a constant mask would show nothing"


def test_confidence_is_the_rounded_softmax_of_the_predicted_class(segmentor):
    batch = images(2, 64, 64)
    with torch.inference_mode():
        graph = DeployGraph(segmentor, "mask+confidence")
        mask, confidence = graph(batch)
        probabilities = graph.logits(batch).softmax(dim=1)
    expected = 255 * probabilities.gather(1, mask[:, None].long())[:, 0]
    assert confidence.dtype == torch.uint8 and confidence.shape == mask.shape
    assert (confidence.float() - expected).abs().max() <= 0.5 + 1e-3
    assert confidence.min() >= 255 // 5 and len(confidence.unique()) > 20


def test_equal_means_become_a_scalar_and_others_do_not(segmentor):
    other = copy.deepcopy(segmentor)
    other.mean.fill_(127.5)
    graph = DeployGraph(other)
    assert graph.mean.shape == () and graph.std.shape == (3,)
    batch = images(1, 32, 64)
    with torch.inference_mode():
        expected = upsample(other(other.normalise(batch.permute(0, 3, 1, 2))), (32, 64))
        assert torch.allclose(graph.logits(batch), expected, atol=1e-5)


def test_a_mask_cannot_hold_more_than_256_classes(segmentor):
    many = copy.deepcopy(segmentor)
    many.num_classes = 257
    with pytest.raises(ValueError, match="at most 256 classes, got 257"):
        DeployGraph(many)


def test_the_training_mode_is_refused(segmentor):
    training = copy.deepcopy(segmentor).train()
    with pytest.raises(ValueError, match="training mode"):
        DeployGraph(training)


def test_it_runs_the_network_in_its_own_precision(segmentor):
    half = copy.deepcopy(segmentor).to(torch.bfloat16)
    half.mean, half.std = segmentor.mean, segmentor.std
    seen: list[torch.dtype] = []
    half.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dtype))
    with torch.inference_mode():
        mask = DeployGraph(half)(images(1, 32, 32))
    assert seen == [torch.bfloat16] and mask.dtype == torch.uint8
    assert isinstance(half, nn.Module)
