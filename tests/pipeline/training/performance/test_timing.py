"""Every second of a training is some part's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.training.config import TrainConfig
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from pipeline.training.performance.timing import PARTS, Clock, Stopwatch, TimeReport, time_report

CONTRAST = MethodConfig("pixel_contrast", PixelContrastConfig(warmup_fraction=0.5, max_views=5, embedding_dim=16))


def test_stamps_are_compared_only_after_the_device_has_settled() -> None:
    settled: list[bool] = []
    moments = iter(range(10))

    def seconds(first: int, last: int) -> float:
        assert settled
        return last - first

    watch = Stopwatch(Clock(lambda: next(moments), seconds, lambda: settled.append(True)))
    for part in ("data_wait", "forward", "data_wait"):
        watch.mark(part)
    assert watch.pop() == {"data_wait": 2, "forward": 1}
    assert watch.pop() == {}


def test_the_parts_of_a_training_add_up_to_its_time(run: Callable[..., TrainResult], tiny_config: TrainConfig) -> None:
    reports: list[TimeReport] = []
    config = dataclasses.replace(tiny_config, checkpoint_every=1)
    result = run("a", CONTRAST, config, finish=lambda result, time: reports.append(time))
    (report,) = reports
    assert set(report.seconds_per_part) == set(PARTS)
    assert all(seconds > 0 for seconds in report.seconds_per_part.values())
    assert sum(report.seconds_per_part.values()) == pytest.approx(result.seconds, rel=0.1)
    assert [epoch["iteration"] for epoch in report.epochs] == [2, 4]
    assert report.images_per_second is not None and report.images_per_second > 0
    assert report.peak_memory_bytes > 50_000_000
    assert (report.device, report.precision, report.threads) == ("CPU", "fp32", 1)


def test_images_per_second_leave_validations_and_checkpoints_out() -> None:
    epochs = [{"iteration": 4, "seconds": {"forward": 3.0, "backward": 1.0, "validation": 6.0, "checkpoint": 2.0}}] * 2
    report = time_report(epochs, images=16, device=torch.device("cpu"), dtype=torch.bfloat16, threads=2)
    assert report.images_per_second == 2
    assert report.seconds_per_part["validation"] == 12
    assert report.precision == "bf16"
