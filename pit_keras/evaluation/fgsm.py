"""FGSM: top-1 accuracy under one signed gradient step (Goodfellow et al., ICLR 2015; table 5)."""

import fractions

import numpy as np
import tensorflow as tf

from pit_keras.evaluation.classification import classification_counts

DEFAULT_EPSILON = fractions.Fraction(8, 255)  # of pixels in 0..1


def fgsm_columns(epsilons=(DEFAULT_EPSILON,)):
    """Epsilons, of pixels in 0..1, by their columns: {"fgsm_4/255": Fraction(4, 255)}."""
    columns = {}
    for epsilon in epsilons:
        levels = epsilon * 255
        text = f"{levels}/255" if levels.denominator == 1 else f"{float(epsilon):g}"
        columns["fgsm" if epsilon == DEFAULT_EPSILON else f"fgsm_{text}"] = epsilon
    return columns


def fgsm_gradient(model, images, labels):
    """The gradient of the cross-entropy by normalised images (B, H, W, 3), and the logits.

    Its sign is that of the gradient by the pixels, which differs by a positive factor.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        logits = model(images, training=False)
        # A sum: an image's gradient does not depend on the others of its batch.
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, "float32"))
        loss = tf.reduce_sum(losses)
    return tape.gradient(loss, images), logits


def fgsm_images(images, gradient, epsilon, mean, std):
    """Images normalised by `mean` and `std` after a step along the gradient's sign.

    `epsilon` is of pixels in 0..1, which the pixels do not leave.
    """
    width, mean, std = images.shape[2], np.asarray(mean), np.asarray(std)
    # Steps and bounds of pixels, normalised. Broadcasting a row is faster than a pixel.
    step, lowest, highest = (
        tf.constant(np.tile(values, width), images.dtype)
        for values in (float(epsilon) / std, (0 - mean) / std, (1 - mean) / std)
    )
    rows, slopes = (tf.reshape(values, (-1, width * 3)) for values in (images, gradient))
    attacked = tf.clip_by_value(rows + step * tf.sign(slopes), lowest, highest)
    return tf.reshape(attacked, tf.shape(images))  # (B * H, W * 3) -> (B, H, W, 3)


def fgsm_counts(epsilons, data):
    """What `Evaluator` measures of images whose pixels are attacked after resizing and cropping.

    The sums are the correct answers for each of the `fgsm_columns`, and the cross-entropies `loss`
    before the attack and `loss_fgsm` (and so on) after it.
    """

    def counts(model, batch):
        images, labels, weights = batch["image"], batch["label"], batch["weight"]
        gradient, logits = fgsm_gradient(model, images, labels)
        before = classification_counts(logits, labels, weights)
        sums = {"images": before["images"], "loss": before["loss"]}
        for column, epsilon in epsilons.items():
            attacked = fgsm_images(images, gradient, epsilon, data.mean, data.std)
            after = classification_counts(model(attacked, training=False), labels, weights)
            sums |= {column: after["top1"], f"loss_{column}": after["loss"]}
        return sums

    return counts
