"""The backgrounds challenge on ImageNet-9 (Xiao et al., "Noise or Signal", ICLR 2021; table 5).

The definitions are those of https://github.com/MadryLab/backgrounds_challenge. A folder
`bg_challenge` holds, with the nine class folders of `CLASS_NAMES` in each:

    original/val/CLASS/NAME.JPEG    photographs, 224 x 224
    fg_mask/val/CLASS/NAME.npy      for some of them, where the foreground is: 0 or 1, (224, 224)
    only_bg_t/val/CLASS/*.JPEG      backgrounds without a foreground
    mixed_same|mixed_rand|mixed_next/val/CLASS/*.JPEG    other backgrounds, optional

Beside it, or in it, lies `in_to_in9.json`, which maps the numbers of ImageNet's classes to those of
the nine, or to -1.
"""

import dataclasses
import json
import pathlib

import numpy as np
import tensorflow as tf

from pit_keras import imagenet
from pit_keras.data.image_files import IMAGE_SUFFIXES
from pit_keras.data.labelled_images import open_source
from pit_keras.data.preprocessing import load_image, normalise, resize_and_crop
from pit_keras.evaluation.classification import measure_source

CLASS_NAMES = (  # of the folders, in the order of their numbers in the mapping
    "00_dog",
    "01_bird",
    "02_wheeled vehicle",
    "03_reptile",
    "04_carnivore",
    "05_insect",
    "06_musical instrument",
    "07_primate",
    "08_fish",
)
CLASSES = len(CLASS_NAMES)
MAPPING = "in_to_in9.json"
VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next")
HOW_TO_GET_IT = (
    "Unpack the release of https://github.com/MadryLab/backgrounds_challenge, put that "
    f"repository's {MAPPING} beside it, and give --backgrounds=FOLDER."
)


@dataclasses.dataclass(frozen=True)
class Challenge:
    """The files of the challenge."""

    class_of_logit: np.ndarray  # one of the nine, or -1, for each of ImageNet's: int64 (1000,)
    foregrounds: tuple[tuple[pathlib.Path, pathlib.Path, int], ...]  # photograph, mask, class
    backgrounds: tuple[pathlib.Path, ...]


def open_challenge(folder):
    """Lists the files of the challenge; a ValueError or FileNotFoundError if one is missing."""
    masks, photographs, backgrounds = (
        _class_folders(folder / part / "val") for part in ("fg_mask", "original", "only_bg_t")
    )
    for variation in _variations_in(folder):
        _class_folders(folder / variation / "val")
    foregrounds = tuple(
        (photographs[name] / f"{mask.stem}.JPEG", mask, label)
        for label, name in enumerate(masks)
        for mask in sorted(masks[name].glob("*.npy"))
    )
    for photograph, mask, _ in foregrounds:
        if not photograph.is_file():
            raise FileNotFoundError(f"There is no {photograph} for {mask}. {HOW_TO_GET_IT}")
    found = tuple(
        path
        for name in masks
        for path in sorted(backgrounds[name].iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    )
    for files, part in ((foregrounds, "fg_mask"), (found, "only_bg_t")):
        if not files:
            raise FileNotFoundError(f"{folder / part} holds no files. {HOW_TO_GET_IT}")
    return Challenge(_read_mapping(folder), foregrounds, found)


def _variations_in(folder):
    return [variation for variation in VARIATIONS if (folder / variation / "val").is_dir()]


def _class_folders(folder):
    """The nine class folders by name, in order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. {HOW_TO_GET_IT}")
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    # With another name, or one more or less, the order would give the images wrong labels.
    wrong = sorted(set(found) ^ set(CLASS_NAMES))
    if wrong:
        problem = "is not one of them" if wrong[0] in found else "is missing"
        raise ValueError(
            f"{folder} must hold the {CLASSES} class folders {CLASS_NAMES[0]} to "
            f"{CLASS_NAMES[-1]}; {wrong[0]!r} {problem}. {HOW_TO_GET_IT}"
        )
    return found


def _read_mapping(folder):
    """One of the nine classes, or -1, for each of ImageNet's: int64 (1000,)."""
    files = [place / MAPPING for place in (folder, folder.parent)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"There is no {files[0]} or {files[1]}. {HOW_TO_GET_IT}")
    try:
        mapping = json.loads(file.read_text())
        mapped = np.array([mapping[str(logit)] for logit in range(imagenet.CLASSES)])
        is_whole = mapped.dtype.kind == "i" and set(mapped) == set(range(-1, CLASSES))
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"{file} does not map ImageNet's classes 0 to {imagenet.CLASSES - 1} to -1 to "
            f"{CLASSES - 1}. {HOW_TO_GET_IT}"
        )
    return mapped.astype(np.int64)


def evaluate_backgrounds(trained, folder, *, batch_size=64, progress=True):
    """The challenge's accuracy, and top-1 on those variations of ImageNet-9 that are there.

    Fractions, `{"backgrounds": ..., "backgrounds_original": ..., ...}`. Images are not cropped.
    """
    folder = pathlib.Path(folder).expanduser()
    challenge = open_challenge(folder)
    if imagenet.in_words(trained.class_names) != imagenet.class_names():
        raise ValueError("The backgrounds challenge needs a model of ImageNet's 1000 classes.")
    data = dataclasses.replace(trained.data, eval_crop=1.0)
    results = {"backgrounds": challenge_accuracy(trained.model, challenge, data, batch_size)}
    counts = nine_class_counts(challenge.class_of_logit)
    for variation in _variations_in(folder):
        source = open_source(f"folder:{folder / variation / 'val'}", holdout=None)
        measured = measure_source(trained.model, source, "all", data, counts, batch_size, progress)
        results[f"backgrounds_{variation}"] = measured["top1"]
    return results


def nine_class_counts(class_of_logit):
    """What `Evaluator` measures of images of the nine classes."""

    def counts(model, batch):
        logits = model(batch["image"], training=False)
        answers = tf.gather(class_of_logit, tf.argmax(logits, axis=-1))
        hits = tf.cast(answers == batch["label"], "float32") * batch["weight"]
        return {"top1": tf.reduce_sum(hits), "images": tf.reduce_sum(batch["weight"])}

    return counts


def challenge_accuracy(model, challenge, data, batch_size=64):
    """The share of foregrounds that are recognised before every background.

    Each foreground is laid over all backgrounds, those of its own class included, and an answer
    that maps to none of the nine classes is wrong, as in `challenge_eval.py`. The search for a
    background that misleads the model ends with the first; to save time, it begins with those that
    misled it most.
    """
    size = load_image(challenge.backgrounds[0]).shape[:2]
    backgrounds = np.stack([_load(path, size) for path in challenge.backgrounds])
    batches = [
        tf.constant(backgrounds[start : start + batch_size])
        for start in range(0, len(backgrounds), batch_size)
    ]
    is_misled = _misled_by(model, challenge.class_of_logit, data)
    misled = np.zeros(len(batches), int)  # foregrounds, by each batch
    for photograph, mask, label in challenge.foregrounds:
        foreground, inside = tf.constant(_load(photograph, size)), tf.constant(_mask(mask, size))
        for number in np.argsort(-misled, kind="stable"):
            if is_misled(batches[number], foreground, inside, tf.constant(label, tf.int64)):
                misled[number] += 1
                break
    return 1 - misled.sum() / len(challenge.foregrounds)


def _misled_by(model, class_of_logit, data):
    """A compiled function: whether one of some backgrounds (B, h, w, 3) misleads the model."""

    @tf.function(autograph=False)
    def is_misled(backgrounds, foreground, inside, label):
        images = tf.where(inside, foreground, backgrounds)
        if images.shape[1:3] != data.image_size:
            images = resize_and_crop(images, data.image_size, 1.0)  # -> (B, H, W, 3)
        logits = model(normalise(images, data.mean, data.std), training=False)
        answers = tf.gather(class_of_logit, tf.argmax(logits, axis=-1))
        return tf.reduce_any(answers != label)

    return is_misled


def _load(path, size):
    image = load_image(path)
    if image.shape[:2] != size:
        raise ValueError(f"{path} has the size {image.shape[:2]}, other images have {size}.")
    return image


def _mask(path, size):
    """True where the foreground is, (h, w, 1)."""
    try:
        with path.open("rb") as file:
            mask = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as an array of NumPy.") from error
    if mask.shape != size or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"{path} must hold {size[0]} x {size[1]} numbers, each 0 or 1.")
    return mask[..., None] != 0
