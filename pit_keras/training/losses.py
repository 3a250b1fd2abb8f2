"""Losses on logits, one value per example."""

from keras import ops


def soft_cross_entropy(targets, logits, label_smoothing=0.0):
    """Cross entropy between the targets' distributions and those of the logits.

    Args:
        targets: `(B, classes)`, distributions over the classes: one-hot, or mixtures of one-hot
            rows as CutMix and MixUp make them.
        logits: `(B, classes)`, of any float type; half precision is computed in float32.
        label_smoothing: the share s, in [0, 1), of every target that is spread evenly over all
            classes: `(1 - s) * targets + s / classes`.

    Returns:
        `(B,)`, float32.

    Raises:
        ValueError: if the shapes are not these or `label_smoothing` is out of its range.
    """
    if len(targets.shape) != 2 or len(logits.shape) != 2 or targets.shape[1] != logits.shape[1]:
        raise ValueError(
            f"Targets and logits must both be (batch, classes), "
            f"got {tuple(targets.shape)} and {tuple(logits.shape)}."
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing!r}.")
    targets = ops.cast(targets, "float32")
    targets = (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]
    # Not `keras.losses.categorical_crossentropy`: the gradient of TensorFlow's fused operation is
    # right only for targets that sum to one, which an all-zero row of padding does not.
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return -ops.sum(targets * log_probabilities, axis=-1)  # (B, classes) -> (B,)
