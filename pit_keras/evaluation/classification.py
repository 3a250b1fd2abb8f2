"""Top-1 and top-5 accuracy over a whole split: every image once, the last partial batch too."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import statistics
import warnings

import keras
import tensorflow as tf
from keras import ops

from pit_keras.data.class_matching import with_classes
from pit_keras.data.pipeline import evaluation_batches
from pit_keras.data.unreadable import UnreadableImages
from pit_keras.errors import require_tensorflow
from pit_keras.runs.metric_names import has_top5
from pit_keras.waits import waiting


def classification_scores(logits, labels):
    """Scores of each image of a batch, (B,), from logits (B, classes) and integer labels (B,).

    `top1` and, of more than five classes, `top5` are 1 if the label is among the first one or five
    classes, else 0; `loss` is the cross-entropy; `predicted` the likeliest class, the first of
    equals; `probability` its softmax.
    """
    logits = ops.cast(logits, "float32")
    best = ops.top_k(logits, min(5, logits.shape[-1]))[1]  # (B, 5)
    hits = ops.cast(best == ops.cast(labels, best.dtype)[:, None], "float32")
    return {
        "top1": hits[:, 0],
        **({"top5": ops.sum(hits, axis=1)} if has_top5(logits.shape[-1]) else {}),
        "loss": keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True),
        "predicted": best[:, 0],
        "probability": ops.exp(ops.max(logits, axis=1) - ops.logsumexp(logits, axis=1)),
    }


def classification_counts(logits, labels, weights):
    """Sums of `top1`, `top5`, `loss`, and the number of `images`; padding has the weight 0."""
    return _summed(classification_scores(logits, labels), weights)


def _summed(scores, weights):
    names = [name for name in ("top1", "top5", "loss") if name in scores]
    sums = {name: ops.sum(scores[name] * weights) for name in names}
    return {**sums, "images": ops.sum(weights)}


def standard_counts(model, batch):
    """`classification_counts` of a model on a batch of `image`, `label` and `weight`."""
    logits = model(batch["image"], training=False)
    return classification_counts(logits, batch["label"], batch["weight"])


def recorded_counts(model, batch):
    """`standard_counts`, and `each_image`: each image's scores, label, id and weight."""
    scores = classification_scores(model(batch["image"], training=False), batch["label"])
    rest = {name: value for name, value in batch.items() if name != "image"}
    return {**_summed(scores, batch["weight"]), "each_image": {**scores, **rest}}


def accuracy_interval(accuracy, images):
    """The 95% confidence interval [low, high] of an accuracy on so many images, by Wilson."""
    z = statistics.NormalDist().inv_cdf(0.975)
    middle = (accuracy + z**2 / (2 * images)) / (1 + z**2 / images)
    spread = math.sqrt(accuracy * (1 - accuracy) / images + (z / (2 * images)) ** 2)
    half = z * spread / (1 + z**2 / images)
    return [round(max(middle - half, 0.0), 4), round(min(middle + half, 1.0), 4)]


class Evaluator:
    """Evaluates a model on batches, on all devices of a strategy; compiled once, used every epoch.

    Args:
        model: Images (B, H, W, C) to logits (B, classes).
        strategy: A `tf.distribute.Strategy`; None for the current one.
        counts: A function of the model and a batch that returns sums over the batch's images, among
            them their number `images`, and perhaps `each_image`, see `recorded_counts`.
    """

    def __init__(self, model, strategy=None, counts=standard_counts):
        require_tensorflow("Evaluation")
        strategy = strategy or tf.distribute.get_strategy()

        @tf.function(autograph=False)
        def compiled_counts(batch):
            sums = strategy.run(functools.partial(counts, model), args=(batch,))
            each_image = sums.pop("each_image", {})
            sums = {name: strategy.reduce("SUM", value, axis=None) for name, value in sums.items()}
            # Those of this process' replicas.
            each_image = {
                name: tf.concat(strategy.experimental_local_results(value), axis=0)
                for name, value in each_image.items()
            }
            return sums, each_image

        self._counts = compiled_counts

    def __call__(self, batches, after_batch=None, record=None):
        """Measures one pass over `pit_keras.data.pipeline.evaluation_batches`.

        `after_batch` is called with the number of batches done, `record` with the `each_image` of
        each batch, as arrays (n,) without padding. Returns the means of the sums over the images,
        and the number of `images`.
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
    """Evaluates a trained model on a split of a data set with the model's classes or some of them.

    Classes are matched by name, see `class_matching`.

    Args:
        split: "train", "val", or "all" for every image of both, the training images first.
        crop: The centre crop's share of the short side; None for the model's own.
        counts, record: See `Evaluator`; images are recorded in the order of `Source.scan`.

    Returns the means of `counts`, by default `top1`, `top5` and `loss`; `images`, `dataset`,
    `split`, `eval_crop`; `top1_interval`, see `accuracy_interval`; and `classes`, how many the data
    set has, if these are not all.
    """
    classes, source = len(source.class_names), with_classes(source, trained.class_names)
    has_all = classes == len(trained.class_names)
    if not has_all:
        warnings.warn(
            f"{source.name} has images of {classes} of the model's {len(trained.class_names)} "
            "classes; the model may answer with all.",
            stacklevel=2,
        )
    data = with_crop(trained.data, crop)
    results = measure_source(
        trained.model, source, split, data, counts, batch_size, progress, record
    )
    if "top1" in results:
        results["top1_interval"] = accuracy_interval(results["top1"], results["images"])
    return {
        **results,
        **({} if has_all else {"classes": classes}),
        "dataset": source.name,
        "split": split,
        "eval_crop": data.eval_crop,
    }


def with_crop(data, crop):
    """A `DataConfig` with another centre crop; None for its own."""
    if crop is None:
        return data
    if not 0 < crop <= 1:
        raise ValueError(f"The crop's share must lie in (0, 1]; got {crop}.")
    return dataclasses.replace(data, eval_crop=crop)


def measure_source(model, source, split, data, counts, batch_size, progress, record=None):
    """The means of `counts` over a split, whatever its classes are; see `evaluate_source`."""
    unreadable, sizes = UnreadableImages(), part_sizes(source, split)
    number = sum(-(-size // batch_size) for size in sizes.values())
    options = {"batch_size": batch_size, "unreadable": unreadable}
    parts = (evaluation_batches(source, part, data, **options) for part in sizes)
    batches = itertools.chain.from_iterable(parts)
    shown = waiting("Evaluating", number) if progress else contextlib.nullcontext()
    with unreadable.plain_errors(), shown as after_batch:
        return Evaluator(model, counts=counts)(batches, after_batch, record)


def part_sizes(source, split):
    """The parts of a split that are not empty, {part: images}."""
    sizes = {part: source.sizes[part] for part in ("train", "val") if split in (part, "all")}
    return {part: size for part, size in sizes.items() if size}
