"""What every backbone with every head must do. Parametrised over the registries: a new one is tested at once."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.graph.structure import first_difference, structure_sha256
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Taps
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.training_heads.trainee import Trainee, build_trainee, strip

CLASSES = 7

# Exported twice, to compare the graphs of two methods.
QUICK_BACKBONES = {"mobilenetv3_small_100", "hrnet_w18_small_v2"}


def random_images(segmentor: Segmentor, batch: int, rows: int, columns: int, seed: int = 0) -> Tensor:
    """Normalised images of `rows` x `columns` strides."""
    shape = (batch, 3, rows * segmentor.stride, columns * segmentor.stride)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def settle(module: nn.Module, images: Tensor) -> None:
    """Give every normalisation weights, and statistics that fit: fresh ones would hide mistakes in both."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(1)
    for norm in norms:
        norm.momentum = 1.0
        with torch.no_grad():
            norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(0.2 * torch.randn(norm.bias.shape, generator=generator))
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            with torch.no_grad():
                layer.weight.copy_(0.5 + torch.rand(layer.weight.shape, generator=generator))
                layer.bias.copy_(0.2 * torch.randn(layer.bias.shape, generator=generator))
    module.train()
    with torch.no_grad():
        module(images)
    for norm in norms:
        norm.momentum = 0.1
    module.eval()


def make_trainee(segmentor: Segmentor, taps: Taps) -> Trainee:
    return build_trainee(segmentor, taps=taps, embedding_dim=16, term_heads=nn.ModuleDict(), auxiliary=True, seed=1)


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Equal up to `relative` of the largest value."""
    assert actual.shape == expected.shape
    assert torch.isfinite(actual).all()
    assert (actual - expected).abs().max() <= relative * expected.abs().max()


@pytest.fixture(scope="module")
def segmentor(network: ModelConfig) -> Segmentor:
    """Settled, in evaluation mode; tests that change it take a copy."""
    segmentor = build_segmentor(network, CLASSES, seed=0)
    settle(segmentor, random_images(segmentor, 4, 4, 4))
    return segmentor


@pytest.fixture(scope="module")
def tolerance(segmentor: Segmentor) -> float:
    """How far two correct float32 computations may differ, relative to the largest logit.

    Deep untrained networks amplify rounding (ResNet-101 to 1e-4), so it is measured: eight times PyTorch's own error
    against float64.
    """
    images = random_images(segmentor, 2, 2, 3, seed=7)
    with torch.no_grad():
        exact = copy.deepcopy(segmentor).double()(images.double())
        error = float((segmentor(images).double() - exact).abs().max() / exact.abs().max())
    assert error < 5e-4
    return max(1e-5, 8 * error)


class TestShapes:
    @pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 1, 1), (2, 3, 1), (3, 1, 5)])
    def test_logits_have_the_output_stride_at_odd_sizes(
        self, segmentor: Segmentor, batch: int, rows: int, columns: int
    ) -> None:
        images = random_images(segmentor, batch, rows, columns)
        height, width = images.shape[2:]
        with torch.no_grad():
            features = segmentor.features(images)
        assert features.head.logits.main.shape == (
            batch,
            CLASSES,
            height // segmentor.output_stride,
            width // segmentor.output_stride,
        )
        assert torch.isfinite(features.head.logits.main).all()
        for stage, channels, stride in zip(
            features.stages, segmentor.stage_channels, segmentor.stage_strides, strict=True
        ):
            assert stage.shape == (batch, channels, height // stride, width // stride)
        assert features.head.input.shape[:2] == (batch, segmentor.head_input_channels)
        for logits in features.head.logits.auxiliary:
            assert logits.shape[:2] == (batch, CLASSES)

    def test_strides_rise_to_the_one_that_images_must_keep(self, segmentor: Segmentor) -> None:
        assert list(segmentor.stage_strides) == sorted(segmentor.stage_strides)
        assert segmentor.stage_strides[0] == 4
        assert segmentor.stride == segmentor.stage_strides[-1]
        assert segmentor.stride % segmentor.output_stride == 0

    def test_sizes_off_the_stride_are_refused(self, segmentor: Segmentor) -> None:
        with pytest.raises(ValueError, match=f"multiples of {segmentor.stride}, got"):
            segmentor(torch.zeros(1, 3, segmentor.stride + 1, segmentor.stride))


class TestEvaluation:
    def test_each_image_of_a_batch_is_on_its_own(self, segmentor: Segmentor, tolerance: float) -> None:
        images = random_images(segmentor, 3, 2, 2)
        with torch.no_grad():
            together = segmentor(images)
            alone = torch.cat([segmentor(image[None]) for image in images])
            turned = segmentor(images.flip(0)).flip(0)
        assert_close(together, alone, tolerance)
        assert_close(together, turned, tolerance)
        assert not torch.allclose(together[0], together[1], rtol=1e-2)

    def test_evaluation_changes_nothing(self, segmentor: Segmentor) -> None:
        images = random_images(segmentor, 1, 2, 2)
        before, state = images.clone(), copy.deepcopy(segmentor.state_dict())
        with torch.no_grad():
            first, second = segmentor(images), segmentor(images)
        assert torch.equal(first, second)
        assert torch.equal(images, before)
        assert all(torch.equal(state[name], tensor) for name, tensor in segmentor.state_dict().items())

    def test_the_head_does_not_write_into_the_stages(self, segmentor: Segmentor) -> None:
        with torch.no_grad():
            stages = segmentor.backbone(random_images(segmentor, 1, 2, 2))
            before = [stage.clone() for stage in stages]
            first = segmentor.head(stages)
        assert all(torch.equal(stage, copied) for stage, copied in zip(stages, before, strict=True))
        with torch.no_grad():
            assert torch.equal(first.input, segmentor.head(stages).input)

    def test_the_memory_format_does_not_matter(self, segmentor: Segmentor, tolerance: float) -> None:
        images = random_images(segmentor, 2, 2, 2)
        other = copy.deepcopy(segmentor).to(memory_format=torch.channels_last)
        with torch.no_grad():
            assert_close(other(images.contiguous(memory_format=torch.channels_last)), segmentor(images), tolerance)


class TestTraining:
    def test_gradients_reach_every_parameter(self, segmentor: Segmentor) -> None:
        trainee = make_trainee(copy.deepcopy(segmentor), Taps.STAGES).train()
        output = trainee(random_images(segmentor, 2, 2, 3), embed=True, everywhere=True)
        generator = torch.Generator().manual_seed(2)
        loss = torch.zeros(())
        for tensor in (output.logits.main, *output.logits.auxiliary, *output.embeddings):
            loss = loss + (tensor * torch.randn(tensor.shape, generator=generator)).mean()
        loss.backward()
        unreached = [
            name
            for name, parameter in trainee.named_parameters()
            if parameter.grad is None
            or not torch.isfinite(parameter.grad).all()
            # HGNetV2 adds constants that the next batch normalisation takes out again: their gradients are rounding.
            or not (parameter.grad.any() or name.endswith(".lab.bias"))
        ]
        assert unreached == []

    def test_training_mode_moves_every_running_mean(self, segmentor: Segmentor) -> None:
        trained = copy.deepcopy(segmentor).train()
        before = {name: buffer.clone() for name, buffer in trained.named_buffers() if name.endswith("running_mean")}
        trained(random_images(segmentor, 2, 2, 3, seed=3))
        assert before
        still = [
            name for name, buffer in trained.named_buffers() if name in before and torch.equal(buffer, before[name])
        ]
        assert still == []

    def test_head_input_taps_what_the_classifier_reads(self, segmentor: Segmentor) -> None:
        copied = copy.deepcopy(segmentor)
        features = copied.features(random_images(segmentor, 1, 2, 2))
        (gradient,) = torch.autograd.grad(features.head.logits.main.sum(), features.head.input)
        assert gradient.abs().sum() > 0
        with torch.no_grad():
            trainee = make_trainee(copied, Taps.HEAD_INPUT)
            assert len(trainee(random_images(segmentor, 2, 2, 2), embed=True).embeddings) == 1


class TestStrip:
    @pytest.mark.parametrize("taps", Taps)
    def test_strip_is_bit_identical_and_independent_of_the_method(self, segmentor: Segmentor, taps: Taps) -> None:
        images = random_images(segmentor, 2, 1, 2)
        stripped = strip(make_trainee(segmentor, taps).train(), images)
        with torch.no_grad():
            assert torch.equal(stripped(images), segmentor.eval()(images))
        assert str(stripped) == str(segmentor)
        expected = {name: tensor.shape for name, tensor in segmentor.state_dict().items()}
        assert {name: tensor.shape for name, tensor in stripped.state_dict().items()} == expected


def export_onnx(segmentor: Segmentor, path: Path) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            segmentor,
            (random_images(segmentor, 2, 2, 3),),
            dynamo=True,
            dynamic_shapes={"images": {0: "B", 2: "H", 3: "W"}},
            opset_version=18,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    return onnx.load(path)


@pytest.mark.slow
class TestExport:
    def test_onnx_agrees_with_pytorch(self, segmentor: Segmentor, tolerance: float, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        model = export_onnx(strip(make_trainee(segmentor, Taps.STAGES), random_images(segmentor, 2, 1, 2)), path)
        kinds = {node.op_type for node in model.graph.node}
        assert "BatchNormalization" not in kinds  # each is folded into its convolution
        assert not kinds & {"If", "Loop", "Scan", "GridSample", "AveragePool", "GlobalAveragePool"}
        # Each is folded into its convolution but where a pooling reads it too, or where it adds a column of ones.
        assert ("Pad" in kinds) == segmentor.config.backbone.startswith(("hgnetv2", "efficientvit"))
        sizes = [axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim]
        assert sizes == ["B", "", "H", "W"]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for batch, rows, columns in ((1, 1, 1), (2, 2, 3), (3, 5, 1)):
            images = random_images(segmentor, batch, rows, columns, seed=batch)
            with torch.no_grad():
                expected = segmentor(images)
            (actual,) = session.run(None, {"images": images.numpy()})
            assert_close(torch.from_numpy(np.asarray(actual)), expected, tolerance)

    def test_the_graph_knows_nothing_of_the_method(self, segmentor: Segmentor, tmp_path: Path) -> None:
        if segmentor.config.backbone not in QUICK_BACKBONES:
            pytest.skip("the modules are compared for every network above; each head is exported twice on a small one")
        images = random_images(segmentor, 2, 1, 2)
        plain, contrasted = (
            export_onnx(strip(make_trainee(segmentor, taps), images), tmp_path / f"{taps.value}.onnx")
            for taps in (Taps.NONE, Taps.STAGES)
        )
        assert first_difference(plain, contrasted) is None
        assert structure_sha256(plain) == structure_sha256(contrasted)
