"""Two principal components of what the contrast worked on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.report.evidence.embeddings import project_embeddings
from pipeline.models.network.weights import save_tensors
from pipeline.models.training_heads.projection import ProjectionHead
from serving.contract.errors import UserError


def checkpoint(folder, channels=()):
    """A checkpoint with one projection per entry of `channels`."""
    torch.manual_seed(0)
    tensors = {"segmentor.rest": torch.zeros(1)}
    for index, width in enumerate(channels):
        head = ProjectionHead(width, 8)
        tensors |= {f"training_heads.projections.{index}.{name}": value for name, value in head.state_dict().items()}
    save_tensors(tensors, folder / "best.safetensors")
    return folder


def test_embeddings_of_the_projection_and_features_without_one(segmentor, stripped, prepared, tmp_path):
    split = prepared.split("val")
    bare = project_embeddings(checkpoint(tmp_path), stripped, "best", split)
    assert "no projection" in bare.source
    width = segmentor.head_input_channels
    found = project_embeddings(checkpoint(tmp_path, [width]), stripped, "best", split)
    assert found.source == "embeddings of the head's input" and not np.allclose(found.points, bare.points)
    for each in (bare, found):
        assert each.points.shape == (len(each.classes), 2) and 0 < each.explained <= 1
        assert np.allclose(each.points.mean(axis=0), 0, atol=1e-9)
        first, second = each.points.var(axis=0)
        assert first >= second, "components come by the variance on them"
        assert set(each.classes.tolist()) <= set(range(prepared.num_classes))
    again = project_embeddings(tmp_path, stripped, "best", split)
    assert np.array_equal(again.points, found.points)


def test_of_several_tapped_layers_the_deepest_is_shown(segmentor, stripped, prepared, tmp_path):
    folder = checkpoint(tmp_path, segmentor.stage_channels)
    found = project_embeddings(folder, stripped, "best", prepared.split("val"))
    assert found.source == f"embeddings of the last of {len(segmentor.stage_channels)} tapped layers"


def test_a_checkpoint_that_is_missing_is_one_message(stripped, prepared, tmp_path):
    with pytest.raises(UserError, match="expected the output of `train`"):
        project_embeddings(tmp_path, stripped, "last", prepared.split("val"))
