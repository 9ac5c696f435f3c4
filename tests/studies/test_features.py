"""Separation of classes in features, against what can be told by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from studies.features import separation


def test_orthogonal_classes_separate_perfectly():
    features, labels = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
    found = separation((features, labels), (features, labels), 5)
    assert found == {"nearest_mean": 1.0, "within": pytest.approx(0, abs=1e-6), "between": pytest.approx(1)}


def test_features_without_a_class_do_not():
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(4000, 8, generator=generator), dim=1)
    labels = torch.randint(0, 4, (4000,), generator=generator)
    found = separation((features[::2], labels[::2]), (features[1::2], labels[1::2]), 4)
    assert found["nearest_mean"] == pytest.approx(0.25, abs=0.05) and found["within"] > 0.9
