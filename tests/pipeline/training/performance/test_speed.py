"""The switches reach torch for as long as a training takes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.models.network.config import ModelConfig
from pipeline.models.training_heads.trainee import strip
from pipeline.training.averaging import AveragingConfig
from pipeline.training.checkpoints import load_trainee
from pipeline.training.config import TrainConfig, decisive_settings
from pipeline.training.faults.signals import TrainingStopped
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from pipeline.training.performance import speed
from pipeline.training.performance.speed import SpeedConfig
from serving.contract.errors import UserError

BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())
SMALL = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="fcn", head_options={"dropout": 0.0})
CONTRAST = MethodConfig(
    "pixel_contrast",
    PixelContrastConfig(max_views=5, embedding_dim=16, warmup_fraction=0.3),
    averaging=AveragingConfig(batch_norm_batches=2),
)


def flags() -> tuple[bool, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32, torch.are_deterministic_algorithms_enabled()


def test_they_hold_within_a_training_alone(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, ...]] = set()
    forward = SupervisedLoss.__call__

    def looked(self: SupervisedLoss, *arguments: Any, **keywords: Any) -> Any:
        seen.add(flags())
        return forward(self, *arguments, **keywords)

    monkeypatch.setattr(SupervisedLoss, "__call__", looked)
    before = flags()
    run("plain", BASELINE)
    assert seen == {(False, False, False, False)}
    seen.clear()
    run("strict", BASELINE, dataclasses.replace(tiny_config, deterministic=True))
    assert seen == {(False, False, False, True)}
    seen.clear()
    run("fast", BASELINE, dataclasses.replace(tiny_config, speed=SpeedConfig(True, True, True)))
    assert seen == {(True, True, True, False)}
    assert flags() == before
    weights = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("plain", "strict", "fast")]
    assert weights[0] == weights[1], "on the CPU everything is deterministic anyway"


def test_an_operation_that_cannot_repeat_its_bits_is_named(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nll_loss2d_forward_out_cuda does not have a deterministic implementation\nmore")

    monkeypatch.setattr(SupervisedLoss, "__call__", refused)
    with pytest.raises(UserError, match=r"train\.deterministic: nll_loss2d_forward_out_cuda .*; set it to false"):
        run("a", BASELINE, dataclasses.replace(tiny_config, deterministic=True))


def test_algorithms_chosen_by_their_time_are_not_called_deterministic() -> None:
    """Each of them repeats its bits, but which one is taken may differ from run to run."""
    with pytest.raises(ValueError, match=r"deterministic: speed\.cudnn_benchmark may choose other algorithms"):
        TrainConfig(deterministic=True, speed=SpeedConfig(cudnn_benchmark=True))


def test_recorded_hashes_of_settings_hold_while_the_new_ones_are_off() -> None:
    later = {"skip_budget", "accumulate", "speed", "deterministic", "checkpoint_every", "checkpoints_kept"}
    assert not later & decisive_settings(TrainConfig()).keys()
    assert decisive_settings(TrainConfig(speed=SpeedConfig(tf32=True), accumulate=2)).keys() & later == {
        "speed",
        "accumulate",
    }


@pytest.fixture
def compiler() -> Iterator[None]:
    """Nothing compiled before is taken, on disk or in memory, and nothing stays."""
    from torch._inductor.utils import fresh_cache  # it takes seconds, and only slow tests need it

    torch.compiler.reset()
    with fresh_cache():
        yield
    torch.compiler.reset()


def compiles(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test of torch.compile: it imports what torch deprecates, and looks for the gradient of its inputs."""
    for warning in ("ignore::DeprecationWarning:torch", "ignore:The .grad attribute of a Tensor:UserWarning"):
        test = pytest.mark.filterwarnings(warning)(test)
    return pytest.mark.slow(pytest.mark.usefixtures("compiler")(test))


PARTS: dict[str, Callable[[nn.Module], None]] = {
    # All of it, to graphs that run operator by operator: a C++ compiler takes minutes for what is in a network.
    "whole": lambda trainee: speed.compile_network(trainee, backend="aot_eager"),
    # To the code that users get, of two convolutions alone.
    "head": lambda trainee: speed.compile_network(trainee.get_submodule("segmentor.head")),
}


@compiles
@pytest.mark.parametrize(("part", "precision"), [("whole", "fp32"), ("head", "fp32"), ("head", "bf16")])
def test_a_compiled_training_leaves_the_same_network_and_goes_on_bit_for_bit(
    part: str,
    precision: Literal["fp32", "bf16"],
    run: Callable[..., TrainResult],
    tiny_config: TrainConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With accumulated gradients and averaged weights; a resume compiles anew."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr("pipeline.training.experiment.compile_network", PARTS[part])
    plain = dataclasses.replace(tiny_config, precision=precision, accumulate=2)
    config = dataclasses.replace(plain, speed=SpeedConfig(compile=True))
    run("plain", CONTRAST, plain, model=SMALL)
    counters.clear()
    run("whole", CONTRAST, config, model=SMALL)
    graphs = {"whole": 2, "head": 1}  # of the whole without the contrast, and with it
    assert counters["stats"]["unique_graphs"] == graphs[part]
    assert "threads of torch, compiled" in capfd.readouterr().err
    left = iter(range(3))
    with pytest.raises(TrainingStopped):
        run("cut", CONTRAST, config, model=SMALL, stop=lambda: next(left, None) is None)
    torch.compiler.reset()
    run("cut", CONTRAST, config, model=SMALL)
    whole, cut, uncompiled = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "cut", "plain"))
    assert whole.keys() == uncompiled.keys(), "no prefix in any name"
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    for name, value in whole.items():
        expected = uncompiled[name].float()
        # In bf16 the statistics of an untrained network are rounding to a large part.
        tolerance = {"fp32": 0.1, "bf16": 0.5}[precision]
        assert (value - expected).float().norm() < tolerance * (expected.norm() + 1), name
    trained, _ = load_trainee(tmp_path / "whole", "last")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(strip(trained, images)(images), trained(images, embed=False).logits.main)


@compiles
def test_a_machine_without_a_compiler_is_told_so(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.config import cpp

    monkeypatch.setattr(cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr("pipeline.training.experiment.compile_network", PARTS["head"])
    config = dataclasses.replace(tiny_config, speed=SpeedConfig(compile=True))
    with pytest.raises(UserError) as caught:
        run("a", BASELINE, config, model=SMALL)
    assert len(str(caught.value).splitlines()) == 1
    assert re.match(r"train\.speed\.compile: .*C\+\+ compiler.*no-such-compiler.*or set it to false", str(caught.value))
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_hashes_of_settings_recorded_before_hold_while_nothing_is_compiled() -> None:
    settings = decisive_settings(TrainConfig(speed=SpeedConfig(tf32=True)))["speed"]
    assert settings == {"cudnn_benchmark": False, "fused_optimizer": False, "tf32": True}
    assert decisive_settings(TrainConfig(speed=SpeedConfig(compile=True)))["speed"]["compile"]


def test_several_processes_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "world_size", lambda: 2)
    with pytest.raises(UserError, match=r"train\.speed\.compile: expected false with 2 processes"):
        speed.compile_network(torch.nn.Identity())
