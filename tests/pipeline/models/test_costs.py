"""Counting what a network costs, against counts by hand."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.models.costs import count_parameters, multiply_adds, peak_activation_bytes, saved_activation_bytes

FLOAT = 4


class Branching(nn.Module):
    """One convolution whose input is needed again at the end, another that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.twice = nn.Conv2d(8, 8, 1, groups=4, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wide = self.widen(images)
        return wide + self.twice(self.twice(wide))


def test_multiply_adds_of_convolutions_per_module_and_call() -> None:
    network = nn.ModuleDict({"body": Branching()}).to("meta")
    images = torch.empty(2, 3, 5, 7, device="meta")
    counts = multiply_adds(lambda: network["body"](images))
    pixels = 2 * 5 * 7
    assert counts["widen"] == pixels * 3 * 8 * 9
    assert counts["twice"] == 2 * pixels * 8 * 2
    assert counts[""] == counts["widen"] + counts["twice"]


def test_multiply_adds_of_matrix_products() -> None:
    a, b = torch.empty(3, 4, 5, device="meta"), torch.empty(3, 5, 6, device="meta")
    assert multiply_adds(lambda: torch.bmm(a, b))[""] == 3 * 4 * 5 * 6


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert count_parameters(nn.ModuleList([first, second])) == 16 + 4 + 4


def test_peak_is_what_lives_at_once_not_the_sum() -> None:
    deep = nn.Sequential(*[nn.Conv2d(4, 4, 1, bias=False) for _ in range(10)])
    plane = 2 * 4 * 6 * 6 * FLOAT
    for device in ("cpu", "meta"):
        images = torch.empty(2, 4, 6, 6, device=device)
        # Sequential's caller holds the input; inside, one input and one output at a time.
        assert peak_activation_bytes(deep.to(device), images) == 3 * plane


def test_peak_sees_what_is_kept_for_later() -> None:
    images = torch.empty(1, 3, 5, 5, device="meta")
    narrow, wide = 3 * 25 * FLOAT, 8 * 25 * FLOAT
    assert peak_activation_bytes(Branching().to("meta"), images) == narrow + 3 * wide


def test_in_place_operations_and_views_cost_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Flatten(1)).to("meta")
    images = torch.empty(1, 3, 5, 5, device="meta")
    assert peak_activation_bytes(network, images) == (3 + 8) * 25 * FLOAT


def test_saved_activations_are_those_of_the_backward_pass() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 1, bias=False)).to("meta")
    images = torch.empty(4, 3, 5, 5, device="meta")
    # The input and the rectified output; the first convolution's output is not needed and weights are not activations.
    assert saved_activation_bytes(network, lambda: network(images)) == 4 * 25 * (3 + 8) * FLOAT


def test_nothing_is_saved_without_parameters_to_train() -> None:
    network = nn.Conv2d(3, 8, 1).to("meta").requires_grad_(False)
    images = torch.empty(1, 3, 5, 5, device="meta")
    assert saved_activation_bytes(network, lambda: network(images)) == 0
