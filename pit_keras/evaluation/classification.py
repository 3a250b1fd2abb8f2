"""Top-1 and top-5 accuracy over a whole split: every image once, the last partial batch too."""

import dataclasses
import functools

import keras
import tensorflow as tf
from keras import ops

from pit_keras.data.pipeline import evaluation_batches
from pit_keras.data.unreadable import UnreadableImages


def classification_scores(logits, labels):
    """How well each image of a batch is classified.

    Args:
        logits: (B, classes).
        labels: (B,) integers.

    Returns:
        For each image (B,): `top1` and `top5`, 1 where the label is the first or among the first
        five classes, else 0 (with fewer than five classes, `top5` counts all of them); `loss`, the
        cross-entropy; `predicted`, the likeliest class, the first of equals; `probability`, its
        share of the softmax.
    """
    logits = ops.cast(logits, "float32")
    best = ops.top_k(logits, min(5, logits.shape[-1]))[1]  # (B, 5)
    hits = ops.cast(best == ops.cast(labels, best.dtype)[:, None], "float32")
    return {
        "top1": hits[:, 0],
        "top5": ops.sum(hits, axis=1),
        "loss": keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True),
        "predicted": best[:, 0],
        "probability": ops.exp(ops.max(logits, axis=1) - ops.logsumexp(logits, axis=1)),
    }


def classification_counts(logits, labels, weights):
    """Sums over a batch, to be divided by the number of images in the end.

    Args:
        logits: (B, classes).
        labels: (B,) integers.
        weights: (B,), 1 for an image and 0 for padding.

    Returns:
        `top1`, `top5` and `loss` of `classification_scores` summed over the images, and their
        number `images`.
    """
    return _summed(classification_scores(logits, labels), weights)


def _summed(scores, weights):
    sums = {name: ops.sum(scores[name] * weights) for name in ("top1", "top5", "loss")}
    return {**sums, "images": ops.sum(weights)}


class Evaluator:
    """Evaluates a model on batches, on all devices of a strategy; compiled once, used every epoch.

    Args:
        model: Images (B, H, W, C) to logits (B, classes).
        strategy: A `tf.distribute.Strategy`; None for the current one.
    """

    def __init__(self, model, strategy=None):
        self._strategy = strategy or tf.distribute.get_strategy()

        def replica_scores(batch):
            logits = model(batch["image"], training=False)
            scores = classification_scores(logits, batch["label"])
            return _summed(scores, batch["weight"]), {**scores, **_without_images(batch)}

        @tf.function(autograph=False)
        def measure(batch, keep_scores):
            sums, scores = self._strategy.run(replica_scores, args=(batch,))
            sums = tf.nest.map_structure(
                lambda value: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None),
                sums,
            )
            return sums, self._of_all_replicas(scores) if keep_scores else {}

        self._measure = measure

    def _of_all_replicas(self, scores):
        parts = self._strategy.experimental_local_results
        return {name: tf.concat(parts(value), axis=0) for name, value in scores.items()}

    def __call__(self, batches, after_batch=None, record=None):
        """Measures one pass over `pit_keras.data.pipeline.evaluation_batches`.

        Args:
            batches: Finitely many of `image`, `label` and `weight`, on the strategy's replicas.
            after_batch: Called with the number of batches done, after each.
            record: Called with what is known of each image of a batch: `classification_scores` and
                all of the batch but `image`, as arrays (n,) without padding.

        Returns:
            `{"top1", "top5", "loss", "images"}`: fractions, the mean, and the number of images.

        Raises:
            ValueError: If there are no images.
        """
        totals = {"top1": 0.0, "top5": 0.0, "loss": 0.0, "images": 0.0}
        for done, batch in enumerate(batches, 1):
            sums, scores = self._measure(batch, keep_scores=record is not None)
            for name, value in sums.items():
                totals[name] += float(value)
            if record:
                is_image = scores["weight"].numpy() > 0
                record({name: value.numpy()[is_image] for name, value in scores.items()})
            if after_batch:
                after_batch(done)
        images = totals.pop("images")
        if not images:
            raise ValueError("There are no images to evaluate.")
        return {**{name: total / images for name, total in totals.items()}, "images": int(images)}


def _without_images(batch):
    return {name: value for name, value in batch.items() if name != "image"}


def evaluate_source(
    trained, source, split="val", *, batch_size=64, crop=None, progress=True, record=None
):
    """Evaluates a trained model on a split of a data set.

    Args:
        trained: A `TrainedModel`.
        source: What `pit_keras.data.sources.open_source` returns.
        split: "train", "val", or "all" for every image of both.
        batch_size: Images at a time.
        crop: The centre crop's share of the short side; None for the model's own.
        progress: Whether to show a progress bar.
        record: Called with "train" or "val" and what `Evaluator` tells of each image of a batch, in
            the order of `Source.scan`.

    Returns:
        `{"top1", "top5", "loss", "images", "dataset", "split", "eval_crop"}`.

    Raises:
        ValueError: If the data's classes are not the model's, or an image cannot be read; it names
            the class or the image.
    """
    check_classes(trained.class_names, source)
    if crop is not None and not 0 < crop <= 1:
        raise ValueError(f"The centre crop's share must lie in (0, 1]; got {crop}.")
    data = trained.data if crop is None else dataclasses.replace(trained.data, eval_crop=crop)
    unreadable, evaluator, parts = UnreadableImages(), Evaluator(trained.model), []
    for part in _parts(source, split):
        batches = evaluation_batches(
            source, part, data, batch_size=batch_size, unreadable=unreadable
        )
        bar = keras.utils.Progbar(-(-source.sizes[part] // batch_size), verbose=int(progress))
        with unreadable.plain_errors():
            parts.append(evaluator(batches, bar.update, record and functools.partial(record, part)))
    return {
        **_together(parts),
        "dataset": source.name,
        "split": split,
        "eval_crop": data.eval_crop,
    }


def _parts(source, split):
    """The splits that make up one, without empty ones."""
    return [part for part in ("train", "val") if source.sizes[part] and split in (part, "all")]


def _together(parts):
    """Results over all images, from the results over each of some parts."""
    images = sum(part["images"] for part in parts)
    means = {
        name: sum(part[name] * part["images"] for part in parts) / images
        for name in ("top1", "top5", "loss")
    }
    return {**means, "images": images}


def check_classes(class_names, source):
    """Checks that a data set has the classes that a model was trained on, in the same order.

    Raises:
        ValueError: If not; it names the first class that differs.
    """
    if tuple(class_names) == tuple(source.class_names):
        return
    if len(class_names) != len(source.class_names):
        raise ValueError(
            f"{source.name} has {len(source.class_names)} classes and the model {len(class_names)}."
        )
    label, ours, theirs = next(
        (label, ours, theirs)
        for label, (ours, theirs) in enumerate(zip(class_names, source.class_names, strict=True))
        if ours != theirs
    )
    raise ValueError(
        f"Class {label} is {theirs!r} in {source.name} and {ours!r} in the model; give its names "
        "in the data set's order with --classes=FILE."
    )
