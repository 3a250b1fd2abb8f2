"""MixUp, CutMix and their labels against timm's `Mixup`, live."""

import numpy as np
import pytest
import tensorflow as tf
import timm.data.mixup
import torch
from timm.data.mixup import Mixup, mixup_target
from timm.loss import SoftTargetCrossEntropy
from tolerances import assert_close

from pit_keras.data.mixing import mix
from pit_keras.data.seeds import example_seed
from pit_keras.losses import soft_cross_entropy

ALPHAS = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
TIMMS_MODES = {"batch": "batch", "element": "elem"}
CLASSES = 5


def drawn_params(images, mixed):
    """What was drawn for each image, read off from what is shown, not from the labels.

    Returns:
        lambda of MixUp (B,), of no meaning for CutMix; whether it is CutMix (B,); and the boxes, a
        list of B (top, bottom, left, right).
    """
    partners = images[::-1]
    changed = (mixed != images).any(axis=-1)  # (B, H, W)
    by_cutmix = (~changed | (mixed == partners).all(axis=-1)).all(axis=(1, 2))
    kept, whole = (
        np.linalg.norm(part, axis=(1, 2)) for part in (mixed - partners, images - partners)
    )
    lambdas = np.where(by_cutmix, 0.5, (kept / whole).mean(axis=-1))
    return lambdas, by_cutmix, [edges_of(mask) for mask in changed]


def edges_of(mask):
    """The box (top, bottom, left, right) that a mask (H, W) marks, ends exclusive."""
    edges = []
    for axis in (1, 0):
        (marked,) = np.nonzero(mask.any(axis=axis))
        edges += [marked[0], marked[-1] + 1] if len(marked) else [0, 0]
    return edges


def timms(monkeypatch, mode, lambdas, by_cutmix, boxes):
    """timm's `Mixup` that draws these."""
    params = (float(lambdas[0]), bool(by_cutmix[0])) if mode == "batch" else (lambdas, by_cutmix)
    cut = iter([box for box, chosen in zip(boxes, by_cutmix, strict=True) if chosen])
    monkeypatch.setattr(timm.data.mixup, "rand_bbox", lambda *_, **__: next(cut))
    for name in ("_params_per_batch", "_params_per_elem"):
        monkeypatch.setattr(Mixup, name, lambda *_: params)
    return Mixup(**ALPHAS, mode=TIMMS_MODES[mode], label_smoothing=0.1, num_classes=CLASSES)


@pytest.mark.parametrize("mode", TIMMS_MODES)
def test_images_and_losses_are_timms_for_the_same_draws(monkeypatch, mode):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 20, 30, 3)).astype(np.float32)
    classes = np.array([0, 1, 2, 3, 3, 4, 4, 0])
    logits = rng.normal(size=(8, CLASSES)).astype(np.float32)

    @tf.function
    def mixing(seed):
        labels = tf.one_hot(classes, CLASSES)
        return mix(tf.constant(images), labels, seed, **ALPHAS, mode=mode)

    kinds = []
    for example in range(12):
        mixed, labels = (result.numpy() for result in mixing(example_seed(0, 0, example)))
        lambdas, by_cutmix, boxes = drawn_params(images, mixed)
        kinds.extend(by_cutmix)
        reference = timms(monkeypatch, mode, lambdas, by_cutmix, boxes)

        expected, targets = reference(
            torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes)
        )

        # The share is read off sums over the pixels; mixing is five roundings, smoothing three.
        read_off, size = 20 * 30, 2 * np.abs(images).max()
        assert_close(mixed, expected.permute(0, 2, 3, 1), roundings=read_off + 5, scale=size)
        # Ours are smoothed by the loss, and theirs are already.
        ours = 0.9 * labels + 0.1 / CLASSES
        assert_close(ours, targets, roundings=read_off + 8, scale=1)
        losses = soft_cross_entropy(labels, logits, label_smoothing=0.1)
        reference_loss = SoftTargetCrossEntropy()(torch.tensor(logits), targets)
        size = np.abs(logits).max()
        assert_close(np.mean(losses), reference_loss, roundings=read_off + 30, scale=size)
    assert 0 < np.mean(kinds) < 1


@pytest.mark.parametrize("share", [0.0, 0.31, 0.5, 1.0])
def test_smoothing_in_the_loss_is_smoothing_in_the_target(share):
    classes = torch.tensor([0, 2, 2, 4])
    one_hot = np.eye(CLASSES, dtype=np.float32)[classes]
    mixed = share * one_hot + (1 - share) * one_hot[::-1]
    targets = mixup_target(classes, CLASSES, share, smoothing=0.1)
    logits = np.random.default_rng(1).normal(size=(4, CLASSES)).astype(np.float32)

    losses = soft_cross_entropy(mixed, logits, label_smoothing=0.1)

    reference = torch.sum(-targets * torch.log_softmax(torch.tensor(logits), dim=-1), dim=-1)
    # The softmax's sum and the label's, of five classes, and what is done to their terms.
    assert_close(losses, reference, roundings=20, scale=np.abs(logits).max())


DRAWS = 2400
CASES = {
    # alphas, and the side of the images: CutMix's boxes have whole pixels, and timm's may have one
    # more than ours
    "mixup": ({"mixup_alpha": 0.8, "cutmix_alpha": 0.0}, 8),
    "cutmix": ({"mixup_alpha": 0.0, "cutmix_alpha": 1.0}, 224),
    "both": (ALPHAS, 224),
}


@pytest.mark.parametrize("mode", TIMMS_MODES)
@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_of_a_label_is_distributed_as_timms(mode, case):
    alphas, side = CASES[case]
    # The first half of each batch: its partners are of the other class, and draw on their own.
    batches, classes = DRAWS if mode == "batch" else DRAWS // 2, [0, 0, 1, 1]
    images, labels = tf.zeros((4, side, side, 1)), tf.one_hot(classes, 2)
    ours = tf.data.Dataset.range(batches).map(
        lambda i: mix(images, labels, example_seed(0, 0, i), **alphas, mode=mode)[1]
    )
    np.random.seed(0)  # timm draws from NumPy's global generator
    mixup = Mixup(**alphas, mode=TIMMS_MODES[mode], label_smoothing=0.0, num_classes=2)
    images, labels = torch.zeros((4, 1, side, side)), torch.tensor(classes)
    theirs = [mixup(images, labels)[1].numpy() for _ in range(batches)]

    drawn = 1 if mode == "batch" else 2
    ours, theirs = (
        np.stack(list(part))[:, :drawn, 0].ravel() for part in (ours.as_numpy_iterator(), theirs)
    )

    assert len(ours) == len(theirs) == DRAWS
    levels = np.quantile(theirs, np.linspace(0.05, 0.95, 19))
    shares, expected = ((values[:, None] <= levels).mean(axis=0) for values in (ours, theirs))
    np.testing.assert_allclose(shares, expected, atol=0.045)  # three standard deviations


@pytest.mark.parametrize("mode", TIMMS_MODES)
def test_half_is_mixed_by_cutmix_as_in_timm(mode):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 24, 24, 1)).astype(np.float32)
    mixing = tf.data.Dataset.range(500).map(
        lambda i: mix(tf.constant(images), tf.eye(4), example_seed(0, 0, i), **ALPHAS, mode=mode)[0]
    )
    ours = [drawn_params(images, mixed)[1] for mixed in mixing.as_numpy_iterator()]

    np.random.seed(0)
    mixup = Mixup(**ALPHAS, mode=TIMMS_MODES[mode])
    draw = mixup._params_per_batch if mode == "batch" else lambda: mixup._params_per_elem(4)
    theirs = [draw()[1] for _ in range(500)]

    if mode == "batch":
        assert all(len(set(chosen)) == 1 for chosen in ours)
    tolerance = 0.07 if mode == "batch" else 0.035  # three standard deviations
    assert abs(np.mean(ours) - 0.5) < tolerance
    assert abs(np.mean(theirs) - 0.5) < tolerance
