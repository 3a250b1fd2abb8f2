"""Facts about ImageNet-1k that models and data pipelines share."""

import collections
import functools
import importlib.resources
import sys
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of values in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)

CLASSES = 1000


@functools.cache
def synsets():
    """WordNet's ids and words of the classes, such as ("n01440764", ("tench", "Tinca tinca")).

    They are in the order of the logits, which is that of the ids.
    """
    text = importlib.resources.files("pit_keras").joinpath("imagenet_classes.txt").read_text()
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return tuple((synset, tuple(words.split(", "))) for synset, words in pairs)


@functools.cache
def class_names():
    """A name for each class, in the order of the logits; all are different.

    It is the first of the class's words; where two classes share it ("crane", the bird and the
    machine), WordNet's id follows.
    """
    shared = collections.Counter(words[0] for _, words in synsets())
    return tuple(
        words[0] if shared[words[0]] == 1 else f"{words[0]} ({synset})"
        for synset, words in synsets()
    )


@functools.cache
def _names_of_synsets():
    return dict(zip((synset for synset, _ in synsets()), class_names(), strict=True))


def in_words(names):
    """Class names with `class_names()` in place of the WordNet ids among them."""
    return tuple(_names_of_synsets().get(name, name) for name in names)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Images in 0..255 as the models take them: (x / 255 - mean) / std, float32.

    Args:
        x: RGB images (..., H, W, 3), an array or a tensor of the backend or of tf.data.
        data_format: "channels_first" for images (..., 3, H, W); else the channels come last,
            whatever `keras.json` says, as in the models.
    """
    import keras
    import numpy as np

    if type(x).__module__.partition(".")[0] == "tensorflow":  # tf.data's, on every backend
        x = sys.modules["tensorflow"].cast(x, "float32")
    elif keras.ops.is_tensor(x):
        x = keras.ops.cast(x, "float32")
    else:
        x = np.asarray(x, "float32")
    shape = (3, 1, 1) if data_format == "channels_first" else (3,)
    mean, std = (np.reshape(np.float32(row), shape) for row in (IMAGENET_MEAN, IMAGENET_STD))
    if keras.ops.is_tensor(x):
        mean, std = map(keras.ops.convert_to_tensor, (mean, std))
    return (x / 255 - mean) / std


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The likeliest classes of ImageNet: for each image `top` tuples (WordNet id, name, score).

    Args:
        preds: Logits or probabilities (B, 1000). The scores are probabilities in either case: rows
            that are none yet, negative or of another sum than one, go through a softmax.
    """
    import keras
    import numpy as np

    scores = keras.ops.convert_to_numpy(preds).astype("float64")
    if scores.ndim != 2 or scores.shape[1] != CLASSES:
        raise ValueError(f"decode_predictions takes ImageNet's (B, 1000); got {scores.shape}.")
    if scores.min(initial=0) < 0 or not np.allclose(scores.sum(axis=1), 1, atol=1e-2):
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    best = np.argsort(-scores, axis=1)[:, :top]
    return [
        [(synsets()[place][0], class_names()[place], float(row[place])) for place in places]
        for row, places in zip(scores, best, strict=True)
    ]
