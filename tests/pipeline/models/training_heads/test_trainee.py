"""The network that trains: taps, streams, and a strip that is proven or refused."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Logits, Taps, TraineeOutput
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.training_heads.projection import ProjectionHead
from pipeline.models.training_heads.trainee import StripError, Trainee, build_trainee, strip

SMALL = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False)
FCN = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="fcn", head_options={"dropout": 0.0})


def make_trainee(
    taps: Taps,
    *,
    config: ModelConfig = SMALL,
    seed: int = 0,
    auxiliary: bool = True,
    term_heads: nn.ModuleDict | None = None,
) -> Trainee:
    return build_trainee(
        build_segmentor(config, 4, seed=seed),
        taps=taps,
        embedding_dim=16,
        term_heads=nn.ModuleDict() if term_heads is None else term_heads,
        auxiliary=auxiliary,
        seed=seed,
    )


def make_images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(5))


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("taps", "layers"), [(Taps.NONE, 0), (Taps.HEAD_INPUT, 1), (Taps.STAGES, 4)])
def test_embeddings_follow_the_taps(taps: Taps, layers: int) -> None:
    trainee = make_trainee(taps)
    output = trainee(make_images(), embed=True, everywhere=True)
    assert trainee.layers == len(output.embeddings) == layers
    sizes = {Taps.NONE: [], Taps.HEAD_INPUT: [(16, 24)], Taps.STAGES: [(16, 24), (8, 12), (4, 6), (2, 3)]}[taps]
    for embeddings, size in zip(output.embeddings, sizes, strict=True):
        assert embeddings.shape == (2, 16, *size)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2, *size))


def test_without_embedding_nothing_of_the_contrast_runs() -> None:
    trainee = make_trainee(Taps.STAGES)
    ran: list[nn.Module] = []
    for module in trainee.training_heads["projections"].modules():
        module.register_forward_hook(lambda module, inputs, output: ran.append(module))
    before = copy.deepcopy(trainee.training_heads.state_dict())
    assert trainee.train()(make_images(), embed=False).embeddings == ()
    assert not ran
    assert all(torch.equal(before[name], tensor) for name, tensor in trainee.training_heads.state_dict().items())
    trainee(make_images(), embed=True)
    assert ran


def test_methods_of_one_seed_start_from_the_same_segmentor_and_compute_the_same_logits() -> None:
    trainees = [make_trainee(taps, seed=3) for taps in Taps]
    for trainee in trainees[1:]:
        assert equal_weights(trainee.segmentor, trainees[0].segmentor)
    logits = [trainee.eval()(make_images(), embed=True).logits.main for trainee in trainees]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_training_heads_have_a_stream_of_their_own() -> None:
    torch.manual_seed(9)
    state = torch.get_rng_state()
    segmentor = build_segmentor(SMALL, 4, seed=0)
    build = lambda seed: build_trainee(  # noqa: E731
        segmentor, taps=Taps.STAGES, embedding_dim=16, term_heads=nn.ModuleDict(), auxiliary=True, seed=seed
    )
    assert equal_weights(build(1).training_heads, build(1).training_heads)
    assert not equal_weights(build(1).training_heads, build(2).training_heads)
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_of_embeddings_reach_projections_and_backbone() -> None:
    trainee = make_trainee(Taps.STAGES).train()
    output = trainee(make_images(), embed=True, everywhere=True)
    weights = torch.Generator().manual_seed(0)
    sum((z * torch.randn(z.shape, generator=weights)).sum() for z in output.embeddings).backward()
    for name, parameter in trainee.training_heads.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert trainee.segmentor.backbone.encoder.conv_stem.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in trainee.segmentor.head.parameters())


def test_the_projection_head_is_the_published_one() -> None:
    head = ProjectionHead(24, 16)
    assert sum(parameter.numel() for parameter in head.parameters()) == 24 * 24 + 2 * 24 + 24 * 16 + 16
    features = torch.randn(2, 24, 3, 5)
    convolved = torch.einsum("oc,bchw->bohw", head.hidden[0].weight[:, :, 0, 0], features)
    deviation = convolved.var(dim=(0, 2, 3), unbiased=False, keepdim=True).add(1e-5).sqrt()
    hidden = torch.relu((convolved - convolved.mean(dim=(0, 2, 3), keepdim=True)) / deviation)
    raw = torch.einsum("oc,bchw->bohw", head.output.weight[:, :, 0, 0], hidden) + head.output.bias[:, None, None]
    torch.testing.assert_close(head(features), raw / raw.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embeddings_are_unit_norm_in_float32_under_autocast(dtype: torch.dtype) -> None:
    head = ProjectionHead(8, 256)
    with torch.autocast("cpu", dtype=dtype):
        embeddings = head(torch.randn(1, 8, 6, 6))
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(1, 6, 6), rtol=1e-6, atol=1e-6)
    assert head.double()(torch.randn(1, 8, 2, 2).double()).dtype == torch.float64


def test_a_zero_feature_gives_a_finite_embedding_and_gradient() -> None:
    head = ProjectionHead(8, 4)
    nn.init.zeros_(head.output.bias)
    features = torch.zeros(1, 8, 2, 2, requires_grad=True)
    head(features).sum().backward()
    assert torch.isfinite(features.grad).all()


def test_the_auxiliary_classifier_is_there_only_where_asked_for_and_the_architecture_has_one() -> None:
    with_auxiliary = make_trainee(Taps.NONE, config=FCN)
    assert [logits.shape for logits in with_auxiliary(make_images(), embed=False).logits.auxiliary] == [(2, 4, 4, 6)]
    assert make_trainee(Taps.NONE, config=FCN, auxiliary=False)(make_images(), embed=False).logits.auxiliary == ()
    assert make_trainee(Taps.NONE)(make_images(), embed=False).logits.auxiliary == ()


@pytest.mark.parametrize("config", [SMALL, FCN])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_strip_returns_the_segmentor_alone_bit_identical(
    config: ModelConfig, memory_format: torch.memory_format
) -> None:
    trainee = make_trainee(Taps.STAGES, config=config, term_heads=nn.ModuleDict({"fusion": nn.Linear(4, 4)}))
    trainee.to(memory_format=memory_format).train()(make_images(), embed=True)  # moves the running statistics
    images = make_images().contiguous(memory_format=memory_format)
    stripped = strip(trainee, images)
    assert trainee.training and trainee.segmentor.training and not stripped.training
    assert type(stripped) is Segmentor
    assert stripped.config == config
    with torch.no_grad():
        assert torch.equal(stripped(images), trainee.eval()(images, embed=True).logits.main)
    assert equal_weights(stripped, trainee.segmentor)
    shared = {tensor.data_ptr() for tensor in trainee.state_dict().values() if tensor.numel()}
    assert not shared & {tensor.data_ptr() for tensor in stripped.state_dict().values() if tensor.numel()}


def test_what_is_stripped_does_not_depend_on_the_method() -> None:
    names = set()
    for taps in Taps:
        stripped = strip(make_trainee(taps), make_images())
        names.add((str(stripped), tuple((name, tuple(t.shape), t.dtype) for name, t in stripped.state_dict().items())))
    assert len(names) == 1


def test_strip_leaves_each_module_in_the_mode_it_was_in() -> None:
    trainee = make_trainee(Taps.HEAD_INPUT).train()
    trainee.segmentor.backbone.eval()  # a frozen backbone
    strip(trainee, make_images())
    assert trainee.training and not trainee.segmentor.backbone.training and trainee.segmentor.head.training


def test_a_hook_that_changes_logits_is_caught() -> None:
    trainee = make_trainee(Taps.NONE)
    trainee.segmentor.head.classifier.register_forward_hook(lambda module, inputs, output: output * 1.0001)
    with pytest.raises(StripError, match=r"logits differ before and after stripping.*largest difference"):
        strip(trainee, make_images())


def test_a_training_head_that_helps_the_logits_is_caught() -> None:
    class Helped(Trainee):
        def forward(self, images: torch.Tensor, *, embed: bool, everywhere: bool = False) -> TraineeOutput:
            output = super().forward(images, embed=embed, everywhere=everywhere)
            helped = output.logits.main + self.training_heads["term"]["helper"].weight[0, 0]
            return dataclasses.replace(output, logits=Logits(helped))

    trainee = make_trainee(Taps.NONE, term_heads=nn.ModuleDict({"helper": nn.Linear(1, 1)}))
    trainee.__class__ = Helped
    with pytest.raises(StripError, match="something outside the segmentor changes what it computes"):
        strip(trainee, make_images())


def test_a_tensor_of_both_sides_is_caught() -> None:
    trainee = make_trainee(Taps.HEAD_INPUT)
    trainee.training_heads["projections"][0].output.bias = trainee.segmentor.head.gate.bias
    with pytest.raises(StripError, match=r"training_heads\.projections\.0\.output\.bias is a tensor of the segmentor"):
        strip(trainee, make_images())


def test_an_addition_to_the_segmentor_is_caught() -> None:
    trainee = make_trainee(Taps.NONE)
    trainee.segmentor.stowaway = nn.Linear(2, 2)
    with pytest.raises(StripError, match=r"not the one that its configuration describes.*stowaway"):
        strip(trainee, make_images())


def test_diverged_weights_are_caught() -> None:
    trainee = make_trainee(Taps.NONE)
    nn.init.constant_(trainee.segmentor.head.classifier.bias, float("nan"))
    with pytest.raises(StripError, match="not finite"):
        strip(trainee, make_images())
