"""Optimiser and learning rate of a training."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.config import OptimizerConfig, ScheduleConfig


def build_optimizer(trainee: Trainee, config: OptimizerConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainee. Biases and norms (one-dimensional parameters) get no weight decay.

    Args:
        trainee: on its device already.
        config: the settings.
        fused: one kernel updates all weights; the last bits differ.
    """
    backbone = {id(parameter) for parameter in trainee.segmentor.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trainee.parameters():
        groups.setdefault((id(parameter) in backbone, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": config.learning_rate * (config.backbone_factor if in_backbone else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if config.name == "sgd":
        return torch.optim.SGD(settings, lr=config.learning_rate, momentum=config.momentum, fused=fused or None)
    return torch.optim.AdamW(settings, lr=config.learning_rate, fused=fused or None)


def learning_rate_factor(iteration: int, iterations: int, config: ScheduleConfig) -> float:
    """Factor of the peak learning rate at `iteration` (from 0): linear warm-up, then polynomial decay over the rest."""
    warmup = round(config.warmup_fraction * iterations)
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    return float((1 - (iteration - warmup) / max(iterations - warmup, 1)) ** config.power)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` of its own peak, which is kept as `peak_lr`."""
    for group in optimizer.param_groups:
        group.setdefault("peak_lr", group["lr"])
        group["lr"] = group["peak_lr"] * factor
