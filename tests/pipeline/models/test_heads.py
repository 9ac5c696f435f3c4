"""Heads one by one: published sizes, equations written out, and what each does with hostile input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.costs import count_parameters, multiply_adds
from pipeline.models.heads.deeplabv3 import DeepLabV3Head, DeepLabV3HeadConfig, ImagePooling
from pipeline.models.heads.light import LightHead, LightHeadConfig
from pipeline.models.heads.ocr import ObjectAttention, OCRHead, OCRHeadConfig, object_regions
from pipeline.models.heads.segformer import SegFormerHead, SegFormerHeadConfig
from pipeline.models.network.branches import concatenate_branches
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Taps
from pipeline.models.network.layers import upsample
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import Trainee, build_trainee
from serving.contract.errors import UserError


def meta_trainee(backbone: str, head: str, num_classes: int) -> Trainee:
    """A network with its auxiliary classifier, of shapes without values."""
    with torch.device("meta"):
        segmentor = build_segmentor(ModelConfig(backbone=backbone, head=head, pretrained=False), num_classes, seed=0)
        return build_trainee(
            segmentor, taps=Taps.NONE, embedding_dim=1, term_heads=nn.ModuleDict(), auxiliary=True, seed=0
        )


@pytest.mark.parametrize(
    ("backbone", "head", "published"),
    [
        # torchvision.models.segmentation: `num_params` of the weights of that name, 21 classes, auxiliary included.
        ("resnet50", "fcn", 35_322_218),
        ("resnet101", "fcn", 54_314_346),
        ("resnet50", "deeplabv3", 42_004_074),
        ("resnet101", "deeplabv3", 60_996_202),
    ],
)
def test_parameters_are_torchvisions_to_the_last_one(backbone: str, head: str, published: int) -> None:
    assert count_parameters(meta_trainee(backbone, head, 21)) == published


@pytest.mark.parametrize(
    ("backbone", "head", "millions"),
    [
        # github.com/HRNet/HRNet-Semantic-Segmentation, 19 classes; OCR: huggingface.co/qualcomm/HRNET_W48_OCR.
        ("hrnet_w48", "hrnet", 65.86),
        ("hrnet_w18_small_v2", "hrnet", 3.94),
        ("hrnet_w48", "ocr", 70.3),
    ],
)
def test_parameters_are_the_published_ones_within_one_per_cent(backbone: str, head: str, millions: float) -> None:
    trainee = meta_trainee(backbone, head, 19)
    assert count_parameters(trainee) == count_parameters(trainee.segmentor)
    assert count_parameters(trainee) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ("backbone", "head", "num_classes", "size", "published"),
    [
        # The HRNet repository counts multiply-adds at 1024x2048 in units of 2**30; torchvision's `_ops` are in 1e9.
        ("hrnet_w48", "hrnet", 19, (1024, 2048), 696.2 * 2**30),
        ("hrnet_w18_small_v2", "hrnet", 19, (1024, 2048), 71.6 * 2**30),
        ("resnet50", "deeplabv3", 21, (520, 520), 178.722e9),
        ("resnet101", "deeplabv3", 21, (520, 520), 258.743e9),
        ("resnet50", "fcn", 21, (520, 520), 152.717e9),
        ("resnet101", "fcn", 21, (520, 520), 232.738e9),
    ],
)
def test_multiply_adds_are_the_published_ones(
    backbone: str, head: str, num_classes: int, size: tuple[int, int], published: float
) -> None:
    trainee = meta_trainee(backbone, head, num_classes).eval()
    images = torch.empty(1, 3, *size, device="meta")
    assert multiply_adds(lambda: trainee(images, embed=False))[""] == pytest.approx(published, rel=1e-3)


class TestDeepLabV3:
    @pytest.mark.parametrize(("stride", "dilations"), [(16, [6, 12, 18]), (8, [12, 24, 36]), (32, [3, 6, 9])])
    def test_rates_follow_the_output_stride(self, stride: int, dilations: list[int]) -> None:
        head = DeepLabV3Head(DeepLabV3HeadConfig(width=8), channels=(8, 8), strides=(4, stride), num_classes=3)
        found = [m.dilation[0] for m in head.branches.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert found == dilations

    def test_image_pooling_is_the_mean_spread_over_the_image(self) -> None:
        pooling = ImagePooling(6, 4).eval()
        features = torch.randn(2, 6, 5, 3)
        pooled = pooling(features)
        assert pooled.shape == (2, 4, 5, 3)
        assert torch.equal(pooled, pooled[:, :, :1, :1].expand_as(pooled))
        expected = pooling.project(features.mean(dim=(2, 3))[:, :, None, None])
        torch.testing.assert_close(pooled[:, :, :1, :1], expected)

    def test_one_image_in_training_is_explained_and_in_evaluation_is_fine(self) -> None:
        config = ModelConfig(backbone="mobilenetv3_small_100", head="deeplabv3", pretrained=False)
        segmentor = build_segmentor(config, 3, seed=0)
        with pytest.raises(
            UserError, match=r"train\.batch_size.*at least 2 images per step, got 1.*image_pooling: false"
        ):
            segmentor.train()(torch.randn(1, 3, 64, 64))
        assert segmentor.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 3, 4, 4)

    def test_the_advice_works(self) -> None:
        config = ModelConfig(
            backbone="mobilenetv3_small_100",
            head="deeplabv3",
            pretrained=False,
            head_options={"image_pooling": False},
        )
        segmentor = build_segmentor(config, 3, seed=0).train()
        assert segmentor(torch.randn(1, 3, 64, 64)).shape == (1, 3, 4, 4)


class TestHRNet:
    def test_branches_are_upsampled_to_the_first_and_concatenated_in_order(self) -> None:
        stages = [torch.randn(1, 2 + i, 16 // 2**i, 24 // 2**i) for i in range(4)]
        branches = concatenate_branches(stages, (4, 8, 16, 32))
        assert branches.shape == (1, 14, 16, 24)
        assert torch.equal(branches[:, :2], stages[0])
        assert torch.equal(branches[:, 9:], upsample(stages[3], (16, 24)))


class TestOCR:
    def test_object_regions_are_soft_means_of_pixels(self) -> None:
        pixels, logits = torch.randn(2, 5, 3, 4), torch.randn(2, 3, 3, 4)
        regions = object_regions(pixels, logits)
        assert regions.shape == (2, 5, 3, 1)
        for image in range(2):
            for region in range(3):
                weights = torch.softmax(logits[image, region].flatten(), 0)
                expected = sum(w * p for w, p in zip(weights, pixels[image].flatten(1).T, strict=True))
                torch.testing.assert_close(regions[image, :, region, 0], expected)

    def test_each_pixel_gathers_objects_by_relation(self) -> None:
        attention = ObjectAttention(6, 8).eval()
        pixels, objects = torch.randn(2, 6, 3, 4), torch.randn(2, 6, 5, 1)
        query, key, value = attention.query(pixels), attention.key(objects), attention.value(objects)
        relation = torch.softmax(torch.einsum("bchw,bckz->bhwk", query, key) / 8**0.5, dim=3)
        expected = attention.output(torch.einsum("bhwk,bckz->bchw", relation, value))
        torch.testing.assert_close(attention(pixels, objects), expected)

    def test_its_auxiliary_classifier_feeds_the_main_one_and_ships(self) -> None:
        head = OCRHead(OCRHeadConfig(width=8, key_width=8), channels=(4, 6), strides=(4, 8), num_classes=3).eval()
        stages = [torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)]
        output = head(stages)
        assert [logits.shape for logits in output.logits.auxiliary] == [(1, 3, 8, 8)]
        output.logits.main.sum().backward()
        assert all(parameter.grad is not None for parameter in head.regions.parameters())

    def test_a_trainee_reads_its_auxiliary_logits_without_another_classifier(self) -> None:
        trainee = meta_trainee("hrnet_w18_small_v2", "ocr", 5)
        output = trainee(torch.empty(2, 3, 64, 64, device="meta"), embed=False)
        assert [logits.shape for logits in output.logits.auxiliary] == [(2, 5, 16, 16)]
        assert "auxiliary" not in trainee.training_heads


class TestSegFormer:
    def test_it_has_the_published_parameters(self) -> None:
        """Xie et al. 2021, table 1: a decoder of 0.4 M for MiT-B0, whose channels PVTv2-B0 has; 0.6 M for MiT-B1."""
        heads = [meta_trainee(backbone, "segformer", 150).segmentor.head for backbone in ("pvt_v2_b0", "pvt_v2_b1")]
        assert [count_parameters(head) for head in heads] == [433_302, 564_374]

    def test_the_deepest_stage_comes_first_into_the_fusion(self) -> None:
        head = SegFormerHead(SegFormerHeadConfig(width=8), channels=(2, 3), strides=(4, 8), num_classes=3).eval()
        shallow, deep = torch.randn(1, 2, 4, 6), torch.randn(1, 3, 2, 3)
        stacked = torch.cat([upsample(head.projections[1](deep), (4, 6)), head.projections[0](shallow)], dim=1)
        assert torch.equal(head([shallow, deep]).input, head.fusion(stacked))


class TestLight:
    @pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 8, 16, 16), (4, 8, 8, 8)])
    def test_stages_of_equal_stride_are_not_enlarged(self, strides: tuple[int, ...]) -> None:
        head = LightHead(LightHeadConfig(width=8), channels=(2, 3, 4, 5), strides=strides, num_classes=3).eval()
        stages = [torch.randn(1, c, 64 // s, 96 // s) for c, s in zip((2, 3, 4, 5), strides, strict=True)]
        assert head(stages).logits.main.shape == (1, 3, 16, 24)

    def test_the_deepest_stage_reaches_every_pixel_through_the_gate(self) -> None:
        head = LightHead(LightHeadConfig(width=8), channels=(2, 3), strides=(4, 32), num_classes=3).eval()
        shallow, deep = torch.randn(1, 2, 64, 64), torch.randn(1, 3, 8, 8)
        changed = deep.clone()
        changed[:, :, 0, 0] += 10
        with torch.no_grad():
            difference = head([shallow, changed]).logits.main - head([shallow, deep]).logits.main
        assert (difference.abs().amax(dim=1) > 0).float().mean() > 0.9

    def test_a_batch_of_one_trains(self) -> None:
        head = LightHead(LightHeadConfig(width=8), channels=(2, 3), strides=(4, 8), num_classes=3).train()
        assert head([torch.randn(1, 2, 4, 4), torch.randn(1, 3, 2, 2)]).logits.main.shape == (1, 3, 4, 4)


def test_classifiers_start_from_nearly_uniform_probabilities() -> None:
    for head in ("light", "fcn", "deeplabv3"):
        config = ModelConfig(backbone="mobilenetv3_small_100", head=head, pretrained=False)
        segmentor = build_segmentor(config, 10, seed=0).train()
        with torch.no_grad():
            probabilities = segmentor(torch.randn(2, 3, 64, 64)).softmax(dim=1)
        assert probabilities.max() < 0.5
