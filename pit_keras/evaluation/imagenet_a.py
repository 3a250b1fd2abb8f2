"""ImageNet-A: natural adversarial examples of 200 of ImageNet's classes (Hendrycks et al., 2021).

A model is asked which of these 200 classes it sees: as in the authors' `eval.py`, the argmax is
taken over their logits only. Over all 1,000 the accuracy is another, lower one, which is given
under a name of its own.
"""

import functools
import importlib.resources
import warnings

import numpy as np
import tensorflow as tf

from pit_keras import imagenet
from pit_keras.data.labelled_images import open_source
from pit_keras.evaluation.classification import measure_source

CLASSES = 200
IMAGES = 7500
TFDS = "tfds"
HOW_TO_GET_IT = (
    "ImageNet-A is prepared with `tfds build imagenet_a`, or unpacked from "
    "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar, a folder with a folder for each "
    "of its 200 classes, n01498041 and so on, and given with --imagenet_a=FOLDER."
)


@functools.cache
def synsets():
    """WordNet's ids of the 200 classes, sorted: those that the authors' `eval.py` looks at."""
    file = importlib.resources.files("pit_keras.evaluation").joinpath("imagenet_a_classes.txt")
    return tuple(file.read_text().splitlines())


def open_imagenet_a(where=TFDS, data_dir=None):
    """Opens ImageNet-A.

    Args:
        where: "tfds", or the folder that holds the 200 class folders.
        data_dir: Where TFDS keeps its data sets.

    Returns:
        The source, and the labels that occur in it: int64 (200,), sorted. Those of TFDS number all
        of ImageNet's classes.

    Raises:
        FileNotFoundError, ValueError: If it is not there, not all of it, or of other classes.
    """
    try:
        source = _open(where, data_dir)
        labels = _labels_of(source)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error} {HOW_TO_GET_IT}") from error
    if len(labels) != CLASSES:
        raise ValueError(
            f"{where} holds {len(labels)} classes, and ImageNet-A has {CLASSES}. {HOW_TO_GET_IT}"
        )
    found = imagenet.in_words([source.class_names[label] for label in labels])
    foreign = sorted(set(found) - set(imagenet.in_words(synsets())))
    if foreign:
        raise ValueError(
            f"{where} holds the class {foreign[0]!r}, which is none of ImageNet-A's {CLASSES}. "
            f"{HOW_TO_GET_IT}"
        )
    images = sum(source.sizes.values())
    if images != IMAGES:
        warnings.warn(f"ImageNet-A has {IMAGES} images, and {where} {images}.", stacklevel=2)
    return source, labels


def _open(where, data_dir):
    if where != TFDS:
        return open_source(f"folder:{where}", holdout=None)
    from pit_keras.data.records import open_records

    return open_records("imagenet_a", data_dir=data_dir, only="test")


def _labels_of(source):
    """The labels that occur, without decoding an image."""
    labels = [
        batch.numpy()
        for split, size in source.sizes.items()
        if size
        for batch in source.scan(split).map(lambda example: example["label"]).batch(1024)
    ]
    return np.unique(np.concatenate(labels)) if labels else np.array([], np.int64)


def logits_of_labels(class_names, source, labels):
    """Where the classes of a data set are among a model's.

    Args:
        class_names: The model's, ImageNet's names or WordNet's ids.
        source: The data set, with `class_names`.
        labels: Those that occur, (L,).

    Returns:
        int64, one for each of the data set's class names: the class's logit, -1 for those that do
        not occur.

    Raises:
        ValueError: If a class is none of the model's; it names the class.
    """
    places = {name: place for place, name in enumerate(imagenet.in_words(class_names))}
    found = np.full(len(source.class_names), -1, np.int64)
    for label in labels:
        name = source.class_names[label]
        (words,) = imagenet.in_words([name])
        if words not in places:
            raise ValueError(
                f"The class {name!r} of {source.name} is none of the model's {len(places)} "
                "classes; ImageNet-A is for models of ImageNet's 1,000."
            )
        found[label] = places[words]
    return found


def imagenet_a_counts(logit_of_label):
    """What `Evaluator` measures on ImageNet-A.

    Args:
        logit_of_label: What `logits_of_labels` gives.

    Returns:
        A function whose sums are the correct answers `imagenet_a` among the data set's own classes,
        and `imagenet_a_all_classes` among all of the model's.
    """
    own = tf.constant(np.sort(logit_of_label[logit_of_label >= 0]), tf.int64)  # (200,)
    logit_of_label = tf.constant(logit_of_label, tf.int64)

    def counts(model, batch):
        logits = model(batch["image"], training=False)  # (B, 1000)
        true = tf.gather(logit_of_label, batch["label"])
        among_own = tf.gather(own, tf.argmax(tf.gather(logits, own, axis=-1), axis=-1))
        among_all = tf.argmax(logits, axis=-1)

        def correct(answers):
            return tf.reduce_sum(tf.cast(answers == true, "float32") * batch["weight"])

        return {
            "imagenet_a": correct(among_own),
            "imagenet_a_all_classes": correct(among_all),
            "images": tf.reduce_sum(batch["weight"]),
        }

    return counts


def evaluate_imagenet_a(trained, where=TFDS, *, data, data_dir=None, batch_size=64, progress=True):
    """Top-1 accuracy on ImageNet-A.

    Args:
        trained: A `TrainedModel` among whose classes are ImageNet-A's.
        where, data_dir: As for `open_imagenet_a`.
        data: The `DataConfig` that says how images are prepared.
        batch_size, progress: As for `evaluate_source`.

    Returns:
        `{"imagenet_a", "imagenet_a_all_classes", "images"}`, see `imagenet_a_counts`.

    Raises:
        FileNotFoundError, ValueError: If the data set is not there or not whole, or its classes are
            not among the model's.
    """
    source, labels = open_imagenet_a(where, data_dir)
    counts = imagenet_a_counts(logits_of_labels(trained.class_names, source, labels))
    return measure_source(trained.model, source, "all", data, counts, batch_size, progress)
