"""Distillation against DeiT's formulas, computed by PyTorch on the same logits."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pit_keras.losses import hard_distillation, soft_cross_entropy, soft_distillation


@pytest.fixture
def logits():
    """Logits of the class head, the distillation head and the teacher, each (8, 100)."""
    return 4 * np.random.default_rng(0).normal(size=(3, 8, 100))


def soft_targets(smoothing=0.1, kept=0.3):
    """Two smoothed one-hot rows for each example, mixed: timm's targets of `SoftTargetCE`."""
    classes = np.random.default_rng(1).integers(100, size=(2, 8))
    one_hot = np.eye(100)[classes]
    smooth = (1 - smoothing) * one_hot + smoothing / 100
    mixed = kept * one_hot[0] + (1 - kept) * one_hot[1]
    return mixed, kept * smooth[0] + (1 - kept) * smooth[1]


def test_the_class_heads_loss(logits):
    mixed, smoothed = soft_targets()
    log_probabilities = functional.log_softmax(torch.tensor(logits[0]), dim=-1)
    expected = torch.sum(-torch.tensor(smoothed) * log_probabilities, dim=-1).mean()

    ours = np.mean(soft_cross_entropy(mixed, logits[0], label_smoothing=0.1))

    assert ours == pytest.approx(float(expected), rel=1e-12)


def test_hard_distillation(logits):
    student, teacher = torch.tensor(logits[1]), torch.tensor(logits[2])
    expected = functional.cross_entropy(student, teacher.argmax(dim=1))

    ours = np.mean(hard_distillation(logits[2], logits[1]))

    assert ours == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_soft_distillation_is_the_references_times_the_classes(logits, tau):
    student, teacher = torch.tensor(logits[1]), torch.tensor(logits[2])
    divergence = functional.kl_div(
        functional.log_softmax(student / tau, dim=1),
        functional.log_softmax(teacher / tau, dim=1),
        reduction="sum",
        log_target=True,
    )
    reference = divergence * (tau * tau) / student.numel()

    ours = np.mean(soft_distillation(logits[2], logits[1], tau))

    assert ours / 100 == pytest.approx(float(reference), rel=1e-12)
