"""Encoders: ImageNet weights that are really loaded, and padding that is a constant."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import Conv2dSame
from torch import nn

import pipeline.models.network.backbone as backbone_module
from pipeline.models.costs import count_parameters
from pipeline.models.network import BACKBONES
from pipeline.models.network.backbone import Backbone, StaticSameConv2d, load_packaged_weights, packaged_weights_path
from pipeline.models.network.catalog import MOBILENETV2_100, TF_EFFICIENTNET_LITE0, TF_EFFICIENTNET_LITE2, BackboneSpec
from serving.contract.errors import UserError

PACKAGED = (TF_EFFICIENTNET_LITE0, TF_EFFICIENTNET_LITE2)


@pytest.fixture(scope="module", params=PACKAGED, ids=lambda spec: spec.timm_name)
def spec(request: pytest.FixtureRequest) -> BackboneSpec:
    found: BackboneSpec = request.param
    return found


@pytest.fixture(scope="module")
def pretrained(spec: BackboneSpec) -> Backbone:
    return Backbone(spec, output_stride=32, pretrained=True).eval()


@pytest.fixture(scope="module")
def untrained(spec: BackboneSpec) -> Backbone:
    return Backbone(spec, output_stride=32, pretrained=False).eval()


def coloured_noise(size: int, seed: int) -> torch.Tensor:
    """An image `[3,size,size]` in 0..255 with the 1/f spectrum and the correlated channels of photographs."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.sqrt(torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None] ** 2)

    def plane() -> torch.Tensor:
        phase = 2 * torch.pi * torch.rand(frequency.shape, generator=generator)
        values = torch.fft.irfft2(torch.polar(1 / frequency.clamp(min=1 / size), phase), s=(size, size))
        return (values - values.mean()) / values.std()

    grey = 115 + 60 * plane()
    return torch.stack([grey + 30 * plane() for _ in range(3)]).clamp(0, 255)


def test_every_tensor_of_the_encoder_is_one_of_the_package_in_order(spec: BackboneSpec, pretrained: Backbone) -> None:
    packaged = torch.load(packaged_weights_path(spec), weights_only=True)
    loaded = list(pretrained.encoder.state_dict().items())
    assert len(loaded) > 200
    for (name, tensor), (packaged_name, expected) in zip(loaded, packaged.items(), strict=False):
        assert torch.equal(tensor, expected), (name, packaged_name)


def test_pretrained_features_differ_from_random_ones(pretrained: Backbone, untrained: Backbone) -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for trained, random in zip(pretrained(images), untrained(images), strict=True):
            assert trained.shape == random.shape
            assert not torch.allclose(trained, random, rtol=0.5, atol=0.1 * float(random.std()))


def test_the_weights_expect_this_normalisation(pretrained: Backbone) -> None:
    """The stem meets, on photograph-like images, the variances that ImageNet left in its batch normalisation.

    With the other usual normalisation (ImageNet's deviations instead of 127.5) they are five times as large.
    """
    mean, std = torch.tensor(pretrained.mean), torch.tensor(pretrained.std)
    images = torch.stack([coloured_noise(128, seed) for seed in range(4)])
    with torch.no_grad():
        met = pretrained.encoder.conv_stem((images - mean[:, None, None]) / std[:, None, None]).var(dim=(0, 2, 3))
    stored = pretrained.encoder.bn1.running_var
    alive = stored > 1e-3
    logs = torch.stack([met[alive].log(), stored[alive].log()])
    assert torch.corrcoef(logs)[0, 1] > 0.8
    assert 0.5 < float((logs[0] - logs[1]).mean().exp()) < 2


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    packaged = torch.load(packaged_weights_path(TF_EFFICIENTNET_LITE0), weights_only=True)
    monkeypatch.setattr(backbone_module, "packaged_weights_path", lambda spec: path)
    encoder = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))

    torch.save(dict(list(packaged.items())[:-1]), path)
    with pytest.raises(ValueError, match="expected the 296 tensors of tf_efficientnet_lite0, got 295"):
        load_packaged_weights(encoder, TF_EFFICIENTNET_LITE0)

    name = next(iter(packaged))
    torch.save({**packaged, name: packaged[name][:, :, 1:]}, path)
    with pytest.raises(ValueError, match=rf"{name} has the shape \(32, 3, 2, 3\); expected \(32, 3, 3, 3\)"):
        load_packaged_weights(encoder, TF_EFFICIENTNET_LITE0)


def test_a_missing_package_is_one_clear_error() -> None:
    spec = dataclasses.replace(TF_EFFICIENTNET_LITE0, weights_package="no_such_package_of_weights")
    with pytest.raises(UserError, match=r"no_such_package_of_weights.*is not installed.*pretrained: false"):
        Backbone(spec, output_stride=32, pretrained=True)


def test_a_package_without_weights_is_one_clear_error() -> None:
    spec = dataclasses.replace(TF_EFFICIENTNET_LITE0, weights_package="serving")
    with pytest.raises(UserError, match=r"expected one \.pth file in the package serving, got 0"):
        Backbone(spec, output_stride=32, pretrained=True)


def test_hub_weights_without_network_are_one_clear_error(tmp_path: Path) -> None:
    code = (
        "from pipeline.models.network.backbone import Backbone\n"
        "from pipeline.models.network.catalog import MOBILENETV2_100\n"
        "from serving.contract.errors import run_command\n"
        "run_command(lambda: Backbone(MOBILENETV2_100, output_stride=32, pretrained=True) and 0)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "model.pretrained: the ImageNet weights of mobilenetv2_100 could not be fetched" in done.stderr
    assert "set `pretrained: false`" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientvit_b0", "pvt_v2_b0"])
def test_weights_in_the_hubs_cache_need_no_network(name: str, tmp_path: Path) -> None:
    """What the pages say of a machine without network: the file is laid where the hub's client keeps it."""
    torch.manual_seed(0)
    whole = timm.create_model(name)
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    revision = "0" * 40
    (folder / "snapshots" / revision).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    save_file(whole.state_dict(), folder / "snapshots" / revision / "model.safetensors")
    convolutions = [each for key, each in whole.state_dict().items() if each.ndim == 4 and not key.startswith("head")]
    expected = float(sum(tensor.double().sum() for tensor in convolutions))
    code = (
        "from pipeline.models.network import BACKBONES\n"
        "from pipeline.models.network.backbone import Backbone\n"
        f"encoder = Backbone(BACKBONES.resolve('{name}'), output_stride=32, pretrained=True).encoder\n"
        "print(float(sum(tensor.double().sum() for tensor in encoder.state_dict().values() if tensor.ndim == 4)))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(expected, rel=1e-9), "every convolution is the file's"


def test_without_pretrained_no_weights_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(backbone_module, "packaged_weights_path", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    for spec in (TF_EFFICIENTNET_LITE0, MOBILENETV2_100):
        Backbone(spec, output_stride=32, pretrained=False)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_static_padding_equals_the_dynamic_one_at_every_multiple(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(kernel * 100 + stride * 10 + dilation)
    dynamic = Conv2dSame(2, 4, kernel, stride=stride, dilation=dilation, groups=2)
    static = StaticSameConv2d(dynamic)
    assert static.weight is dynamic.weight
    for multiple in (1, 2, 3, 7):
        images = torch.randn(1, 2, stride * multiple, stride * (multiple + 1))
        assert torch.equal(static(images), dynamic(images))


def test_static_padding_is_wrong_elsewhere_which_is_why_sizes_are_checked() -> None:
    dynamic = Conv2dSame(1, 1, 3, stride=2)
    images = torch.randn(1, 1, 5, 5)
    assert not torch.equal(StaticSameConv2d(dynamic)(images), dynamic(images))


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_whole_encoder_is_unchanged_by_static_padding(output_stride: int) -> None:
    torch.manual_seed(output_stride)
    ours = Backbone(TF_EFFICIENTNET_LITE0, output_stride=output_stride, pretrained=False).eval()
    theirs = timm.create_model(
        "tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4), output_stride=output_stride
    ).eval()
    theirs.load_state_dict(ours.encoder.state_dict(), strict=True)
    assert any(isinstance(module, Conv2dSame) for module in theirs.modules())
    assert not any(isinstance(module, Conv2dSame) for module in ours.modules())
    with torch.no_grad():
        for height, width in ((1, 1), (3, 2), (2, 5)):
            images = torch.randn(2, 3, output_stride * height, output_stride * width)
            for stage, expected in zip(ours(images), theirs(images), strict=True):
                assert torch.equal(stage, expected)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_no_backbone_keeps_a_dynamically_padded_layer(name: str) -> None:
    spec = BACKBONES.resolve(name)
    with torch.device("meta"):
        encoder = timm.create_model(
            spec.timm_name, features_only=True, out_indices=spec.out_indices, **dict(spec.arguments)
        )
    backbone_module.make_padding_static(encoder)
    for module in encoder.modules():
        is_plain = type(module) in (nn.Conv2d, StaticSameConv2d) or not isinstance(module, nn.Conv2d)
        assert is_plain, type(module)
        assert "Same" not in type(module).__name__ or isinstance(module, StaticSameConv2d)


def test_means_and_deviations_are_in_pixel_units(pretrained: Backbone) -> None:
    assert pretrained.mean == (127.5, 127.5, 127.5)
    with torch.device("meta"):
        other = Backbone(MOBILENETV2_100, output_stride=32, pretrained=False)
    assert other.mean == pytest.approx((123.675, 116.28, 103.53))
    assert other.std == pytest.approx((58.395, 57.12, 57.375))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # timm's repository, results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv, `param_count`.
        ("hgnetv2_b0", 6.0),
        ("hgnetv2_b1", 6.34),
        ("mobilenetv4_conv_small", 3.77),
        ("repvit_m1", 5.49),
        ("efficientvit_b0", 3.41),
        ("pvt_v2_b0", 3.67),
        ("pvt_v2_b1", 14.01),
    ],
)
def test_the_hubs_classifiers_have_the_published_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        whole = timm.create_model(BACKBONES.resolve(name).timm_name)
    assert round(count_parameters(whole) / 1e6, 2) == millions


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES.resolve(name).weights_package is None])
def test_the_hubs_weights_hold_every_tensor_of_the_encoder(name: str) -> None:
    """The hub serves whole classifiers: each tensor of the encoder must be one of them, or it would stay untrained."""
    spec = BACKBONES.resolve(name)
    with torch.device("meta"):
        ours = Backbone(spec, output_stride=spec.output_strides[0], pretrained=False).encoder.state_dict()
        whole = timm.create_model(spec.timm_name).state_dict()

    def shapes(tensors: dict[str, torch.Tensor]) -> set[tuple[str, torch.Size]]:
        # timm loads the whole network and then takes parts out of it, whose names it joins with underscores.
        return {(name.replace(".", "_"), tensor.shape) for name, tensor in tensors.items()}

    assert shapes(ours) <= shapes(whole)
    assert timm.get_pretrained_cfg(spec.timm_name).hf_hub_id
