"""Top-1 and top-5 accuracy over a whole split: every image once, the last partial batch too."""

import collections
import dataclasses
import functools

import keras
import tensorflow as tf
from keras import ops

from pit_keras import imagenet
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


def standard_counts(model, batch):
    """`classification_counts` of a model on a batch of `image`, `label` and `weight` as it is."""
    logits = model(batch["image"], training=False)
    return classification_counts(logits, batch["label"], batch["weight"])


def recorded_counts(model, batch):
    """`standard_counts`, and as `each_image` each image's scores and what else the batch holds.

    `each_image` is `classification_scores` and all of the batch but `image`, each (B,).
    """
    scores = classification_scores(model(batch["image"], training=False), batch["label"])
    rest = {name: value for name, value in batch.items() if name != "image"}
    return {**_summed(scores, batch["weight"]), "each_image": {**scores, **rest}}


class Evaluator:
    """Evaluates a model on batches, on all devices of a strategy; compiled once, used every epoch.

    Args:
        model: Images (B, H, W, C) to logits (B, classes).
        strategy: A `tf.distribute.Strategy`; None for the current one.
        counts: What is measured: a function of the model and a batch that gives sums over the
            batch's images, among them their number `images`, and perhaps `each_image`, see
            `recorded_counts`.
    """

    def __init__(self, model, strategy=None, counts=standard_counts):
        self._strategy = strategy or tf.distribute.get_strategy()

        @tf.function(autograph=False)
        def compiled_counts(batch):
            sums = self._strategy.run(functools.partial(counts, model), args=(batch,))
            each_image = sums.pop("each_image", {})
            sums = tf.nest.map_structure(
                lambda value: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None),
                sums,
            )
            return sums, {name: self._joined(value) for name, value in each_image.items()}

        self._counts = compiled_counts

    def _joined(self, value):
        """The values of all images (B,), from those of this process's replicas."""
        return tf.concat(self._strategy.experimental_local_results(value), axis=0)

    def __call__(self, batches, after_batch=None, record=None):
        """Measures one pass over `pit_keras.data.pipeline.evaluation_batches`.

        Args:
            batches: Finitely many of `image`, `label` and `weight`, on the strategy's replicas.
            after_batch: Called with the number of batches done, after each.
            record: Called with the `each_image` of each batch, as arrays (n,) without padding;
                `counts` must give it.

        Returns:
            Each sum divided by the number of images, and that number; of `standard_counts`
            `{"top1", "top5", "loss", "images"}`: fractions, the mean, and the number of images.

        Raises:
            ValueError: If there are no images.
        """
        totals = collections.Counter()
        for done, batch in enumerate(batches, 1):
            sums, each_image = self._counts(batch)
            for name, value in sums.items():
                totals[name] += float(value)
            if record:
                is_image = each_image["weight"].numpy() > 0
                record({name: value.numpy()[is_image] for name, value in each_image.items()})
            if after_batch:
                after_batch(done)
        images = totals.pop("images", 0)
        if not images:
            raise ValueError("There are no images to evaluate.")
        return {**{name: total / images for name, total in totals.items()}, "images": int(images)}


def evaluate_source(
    trained,
    source,
    split="val",
    *,
    batch_size=64,
    crop=None,
    progress=True,
    counts=standard_counts,
    record=None,
):
    """Evaluates a trained model on a split of a data set that has the model's classes.

    Args:
        trained: A `TrainedModel`.
        source: What `pit_keras.data.labelled_images.open_source` returns.
        split: "train", "val", or "all" for every image of both.
        batch_size: Images at a time.
        crop: The centre crop's share of the short side; None for the model's own.
        progress: Whether to show a progress bar.
        counts: What is measured, see `Evaluator`.
        record: Called with "train" or "val" and the `each_image` of each batch, see `Evaluator`, in
            the order of `Source.scan`.

    Returns:
        `{"top1", "top5", "loss", "images", "dataset", "split", "eval_crop"}`; of other `counts`
        their means in place of the first three.

    Raises:
        ValueError: If the data's classes are not the model's, or an image cannot be read; it names
            the class or the image.
    """
    check_classes(trained.class_names, source)
    data = with_crop(trained.data, crop)
    return {
        **measure_source(trained.model, source, split, data, counts, batch_size, progress, record),
        "dataset": source.name,
        "split": split,
        "eval_crop": data.eval_crop,
    }


def with_crop(data, crop):
    """A `DataConfig` with another centre crop's share, if there is one.

    Raises:
        ValueError: If it does not lie in (0, 1].
    """
    if crop is not None and not 0 < crop <= 1:
        raise ValueError(f"The centre crop's share must lie in (0, 1]; got {crop}.")
    return data if crop is None else dataclasses.replace(data, eval_crop=crop)


def measure_source(model, source, split, data, counts, batch_size, progress, record=None):
    """The means of `counts` over a split, and its number of images; whatever its classes are.

    Args:
        model: Normalised images to logits.
        data: The `DataConfig` that says how images are prepared.
        source, split, counts, batch_size, progress, record: As for `evaluate_source`.

    Raises:
        ValueError: If an image cannot be read; it names the image.
    """
    unreadable, evaluator, parts = UnreadableImages(), Evaluator(model, counts=counts), []
    for part in _parts(source, split):
        batches = evaluation_batches(
            source, part, data, batch_size=batch_size, unreadable=unreadable
        )
        bar = keras.utils.Progbar(-(-source.sizes[part] // batch_size), verbose=int(progress))
        with unreadable.plain_errors():
            parts.append(evaluator(batches, bar.update, record and functools.partial(record, part)))
    return _together(parts)


def _parts(source, split):
    """The splits that make up one, without empty ones."""
    return [part for part in ("train", "val") if source.sizes[part] and split in (part, "all")]


def _together(parts):
    """Results over all images, from the results over each of some parts."""
    images = sum(part["images"] for part in parts)
    means = {name: sum(part[name] * part["images"] for part in parts) / images for name in parts[0]}
    return {**means, "images": images}


def check_classes(class_names, source):
    """Checks that a data set has the classes that a model was trained on, in the same order.

    WordNet's ids, as TFDS's ImageNet and class folders have them, are as good as ImageNet's names.

    Raises:
        ValueError: If not; it names the first class that differs.
    """
    if imagenet.in_words(class_names) == imagenet.in_words(source.class_names):
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
