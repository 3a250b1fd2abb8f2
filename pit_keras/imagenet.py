"""Facts about ImageNet-1k that models and data pipelines share."""

import collections
import functools
import importlib.resources

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
