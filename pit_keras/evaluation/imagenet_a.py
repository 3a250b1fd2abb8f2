"""ImageNet-A: natural adversarial examples of 200 of ImageNet's classes (Hendrycks et al., 2021).

As in the authors' `eval.py`, the argmax is taken over the logits of these 200 classes only. Over
all 1,000 the accuracy is lower; it has a column of its own.
"""

import warnings

import numpy as np
import tensorflow as tf

from pit_keras import imagenet
from pit_keras.data.labelled_images import open_source
from pit_keras.evaluation.classification import measure_source

# The 200 classes among ImageNet's, as the authors' `eval.py` numbers them.
NUMBERS = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96, 97,
    99, 105, 107, 108, 110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254, 277,
    283, 287, 291, 295, 298, 301, 306, 307, 308, 309, 310, 311, 313, 314, 315, 317, 319, 323, 324,
    326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386, 397, 400, 401, 402, 404, 407, 411,
    416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472, 483, 486, 488, 492,
    496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569, 572, 573, 575, 579, 589,
    606, 607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677, 682, 684, 687, 701, 704, 719,
    736, 746, 749, 752, 758, 763, 765, 768, 773, 774, 776, 779, 780, 786, 792, 797, 802, 803, 804,
    813, 815, 820, 823, 831, 833, 835, 839, 845, 847, 850, 859, 862, 870, 879, 880, 888, 890, 897,
    900, 907, 913, 924, 932, 933, 934, 937, 943, 945, 947, 951, 954, 956, 957, 959, 971, 972, 980,
    981, 984, 986, 987, 988,
)  # fmt: skip
IMAGES = 7500
TFDS = "tfds"
HOW_TO_GET_IT = (
    "Prepare ImageNet-A with `tfds build imagenet_a`, or unpack "
    "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar and give --imagenet_a=FOLDER, the "
    "folder of n01498041 and the other classes."
)


def open_imagenet_a(where=TFDS, data_dir=None):
    """Opens ImageNet-A from "tfds", or from the folder of the 200 class folders.

    Returns the source, and the labels that occur in it: int64 (200,), sorted. TFDS numbers all of
    ImageNet's classes.
    """
    try:
        if where == TFDS:
            from pit_keras.data.records import open_records

            source = open_records("imagenet_a", data_dir=data_dir, only="test")
        else:
            source = open_source(f"folder:{where}", holdout=None)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error} {HOW_TO_GET_IT}") from error
    # Without decoding an image.
    batches = [
        source.scan(split).map(lambda example: example["label"]).batch(1024)
        for split, size in source.sizes.items()
        if size
    ]
    labels = np.unique([label for each in batches for batch in each for label in batch.numpy()])
    if len(labels) != len(NUMBERS):
        raise ValueError(f"{where} has {len(labels)} classes instead of 200. {HOW_TO_GET_IT}")
    found = imagenet.in_words([source.class_names[label] for label in labels])
    foreign = sorted(set(found) - {imagenet.class_names()[number] for number in NUMBERS})
    if foreign:
        raise ValueError(f"{where} has {foreign[0]!r}, which ImageNet-A lacks. {HOW_TO_GET_IT}")
    images = sum(source.sizes.values())
    if images != IMAGES:
        warnings.warn(f"ImageNet-A has {IMAGES} images, and {where} {images}.", stacklevel=2)
    return source, labels


def logits_of_labels(class_names, source, labels):
    """The model's logit for each of a data set's classes, -1 for classes that do not occur.

    `class_names` are the model's; `labels` (L,) occur in the source.
    """
    places = {name: place for place, name in enumerate(imagenet.in_words(class_names))}
    words = imagenet.in_words(source.class_names)
    found = np.full(len(words), -1, np.int64)
    for label in labels:
        if words[label] not in places:
            raise ValueError(f"The model lacks ImageNet-A's class {source.class_names[label]!r}.")
        found[label] = places[words[label]]
    return found


def imagenet_a_counts(logit_of_label):
    """What `Evaluator` measures on ImageNet-A, with the result of `logits_of_labels`.

    Correct answers among the data set's own classes, and among all of the model's.
    """
    own = tf.constant(np.sort(logit_of_label[logit_of_label >= 0]), tf.int64)  # (200,)
    logit_of_label = tf.constant(logit_of_label, tf.int64)

    def counts(model, batch):
        logits = model(batch["image"], training=False)  # (B, 1000)
        true = tf.gather(logit_of_label, batch["label"])
        answers = {
            "imagenet_a": tf.gather(own, tf.argmax(tf.gather(logits, own, axis=-1), axis=-1)),
            "imagenet_a_all_classes": tf.argmax(logits, axis=-1),
        }
        hits = {name: tf.cast(given == true, "float32") for name, given in answers.items()}
        sums = {name: tf.reduce_sum(hit * batch["weight"]) for name, hit in hits.items()}
        return {**sums, "images": tf.reduce_sum(batch["weight"])}

    return counts


def evaluate_imagenet_a(trained, where=TFDS, *, data, data_dir=None, batch_size=64, progress=True):
    """Top-1 accuracy on ImageNet-A, see `open_imagenet_a` and `imagenet_a_counts`."""
    source, labels = open_imagenet_a(where, data_dir)
    counts = imagenet_a_counts(logits_of_labels(trained.class_names, source, labels))
    return measure_source(trained.model, source, "all", data, counts, batch_size, progress)
