"""Generated images for object detection: real scans of digits on real photographs.

Nothing is downloaded: the scans are scikit-learn's 1,797 handwritten digits of 8 x 8, the
photographs its two of 427 x 640. The splits share neither: "val" has the digits that
`open_source` holds out, mostly by other writers, and the right quarter of each photograph.
"""

import dataclasses
import json
import pathlib

import numpy as np
from PIL import Image
from rich.progress import track

from pit_keras.data.coco_annotations import coco_categories, coco_object
from pit_keras.data.labelled_images import open_source

MAX_OVERLAP = 0.1  # of two boxes: their intersection over the smaller one
MIN_CONTRAST = 80  # of a digit to what is below it, in levels of luminance of 255
WHITE = (255.0, 255.0, 255.0)
SMALLEST_SIDE = 10  # pixels of an enlarged scan that can be read

_VAL_COLUMNS = 0.25  # the share of a photograph's width that is kept for validation
_CROPS = (0.5, 1.0)  # sides of a background's crop, as shares of the largest one possible
_BRIGHTNESS, _DARK = (0.6, 1.2), (0.4, 0.7)
_FAINT, _FULL = 0.3, 0.7  # a scan's grey level from which its ink is seen, and hides all below it
_LEAST_OPACITY = 0.1  # of what counts as ink
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_JPEG_QUALITY = 95
_COLOURS_TRIED, _PLACES_TRIED = 64, 20


@dataclasses.dataclass(frozen=True)
class Look:
    """How many digits an image has, how large they are, and how they stand out."""

    most: int = 6  # digits of an image; the fewest are 1
    sides: tuple[float, float] = (0.16, 0.40)  # smallest and largest scan, over the short side
    white: bool = False  # on darker photographs, instead of any colours that stand out

    def __post_init__(self):
        smallest, largest = self.sides
        if self.most < 1 or not 0 < smallest <= largest <= 1 or self.most * largest**2 > 1:
            raise ValueError(
                f"{self.most} digits of {smallest} to {largest} times the short side cannot be "
                "drawn; give 1 or more for which there is room, 0 < smallest <= largest <= 1."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An image with its n digits, the later ones drawn over the earlier ones."""

    image: np.ndarray  # uint8 (H, W, 3)
    boxes: np.ndarray  # int (n, 4): left, top, right, bottom in pixels, tight around the ink
    labels: np.ndarray  # int (n,), the digits
    scans: np.ndarray  # int (n,), their numbers within the split


def scenes(split, image_size, seed, *, look=Look(), alone=False):
    """An endless stream of `Scene`s, a function of its arguments.

    The scans are shuffled and dealt, each once before any is drawn again; so the classes are as
    balanced as the scans. `alone` puts one digit in the centre of each image, to classify.
    """
    digits, photographs = open_source("digits"), photograph_parts()
    scans, labels = digits.images[split][..., 0].numpy() / 255, digits.labels[split].numpy()
    # The largest crop of an image's form, in the smaller of the two splits.
    height, width = photographs["val"][0].shape[:2]
    crop = min(height / image_size[0], width / image_size[1]) * np.array(image_size)
    rng = np.random.default_rng([seed, ("train", "val").index(split)])
    deck = []
    while True:
        count = 1 if alone else rng.integers(1, look.most, endpoint=True)
        while len(deck) < count:
            deck.extend(rng.permutation(len(scans)))
        drawn, deck = np.array(deck[:count]), deck[count:]
        inks, boxes = lay_out(scans[drawn], image_size, look.sides, rng, alone)
        brightness = _DARK if look.white else _BRIGHTNESS
        below = _background(photographs[split], crop, image_size, brightness, rng)
        image = draw(below, inks, boxes, rng, WHITE if look.white else None)
        yield Scene(image, boxes, labels[drawn], drawn)


def photograph_parts():
    """The photographs' left three quarters and their right quarter: {"train", "val"}, uint8."""
    from sklearn.datasets import load_sample_images  # takes a second to import

    parts = {"train": [], "val": []}
    for image in load_sample_images().images:
        border = round(image.shape[1] * (1 - _VAL_COLUMNS))
        parts["train"].append(image[:, :border])
        parts["val"].append(image[:, border:])
    return parts


def _background(photographs, largest_crop, image_size, brightness, rng):
    """A part of one of the photographs, flipped or not, darker or brighter: float (H, W, 3)."""
    photograph = photographs[rng.integers(len(photographs))]
    height, width = rng.uniform(*_CROPS) * largest_crop
    top = rng.uniform(0, photograph.shape[0] - height)
    left = rng.uniform(0, photograph.shape[1] - width)
    part = Image.fromarray(photograph).resize(
        image_size[::-1], Image.Resampling.BICUBIC, (left, top, left + width, top + height)
    )
    pixels = np.asarray(part)[:, :: rng.choice([-1, 1])]
    return np.clip(pixels * rng.uniform(*brightness), 0, 255)


def lay_out(scans, image_size, sides, rng, alone=False):
    """Enlarges scans, float (n, 8, 8) in 0..1, with new sizes until there is room for all.

    Returns the opacities of their ink, n arrays as large as their boxes; and the boxes, int (n, 4).
    """
    while True:
        pixels = rng.uniform(*sides, len(scans)) * min(image_size)
        inks = [enlarge(scan, side) for scan, side in zip(scans, pixels, strict=True)]
        boxes = []
        for ink in inks:
            room = np.array(image_size) - ink.shape
            for _ in range(_PLACES_TRIED):
                top, left = room // 2 if alone else rng.integers(room, endpoint=True)
                box = (left, top, left + ink.shape[1], top + ink.shape[0])
                if all(overlap(box, other) <= MAX_OVERLAP for other in boxes):
                    boxes.append(box)
                    break
        if len(boxes) == len(inks):
            return inks, np.array(boxes)


def enlarge(scan, side):
    """Enlarges a scan smoothly to `side` pixels; the opacity of its ink, cut to the ink."""
    rimmed = np.pad(scan, 1).astype("float32")  # ink that touches the rim fades too
    pixels = round(side * rimmed.shape[0] / scan.shape[0])
    grey = Image.fromarray(rimmed).resize((pixels, pixels), Image.Resampling.BICUBIC)
    opacity = np.clip((np.asarray(grey) - _FAINT) / (_FULL - _FAINT), 0, 1)
    opacity[opacity < _LEAST_OPACITY] = 0
    rows, columns = np.flatnonzero(opacity.any(axis=1)), np.flatnonzero(opacity.any(axis=0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def overlap(box, other):
    """The intersection of two boxes over the area of the smaller one."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    return max(width, 0) * max(height, 0) / min(areas)


def draw(below, inks, boxes, rng, colour=None):
    """Draws ink over a background, float (H, W, 3) in 0..255 -> uint8.

    `colour` is RGB in 0..255; without it each digit has a random one that stands out.
    """
    image = np.array(below, float)
    for ink, (left, top, right, bottom) in zip(inks, boxes, strict=True):
        part = image[top:bottom, left:right]  # a view: (h, w, 3)
        own = colour
        if own is None:
            own = _colour_on(np.average(part, axis=(0, 1), weights=np.dstack([ink] * 3)), rng)
        part += ink[..., None] * (own - part)
    return np.round(image).astype("uint8")


def _colour_on(below, rng):
    """The first of some random colours with enough contrast, else the one with the most."""
    colours = rng.uniform(0, 255, (_COLOURS_TRIED, 3))
    contrast = np.abs((colours - below) @ _LUMINANCE)
    return colours[np.argmax(np.minimum(contrast, MIN_CONTRAST))]


def write_digit_scenes(folder, images, image_size, seed, *, look=Look(), progress=False):
    """Writes scenes in COCO's form: FOLDER/SPLIT.json and FOLDER/SPLIT/*.jpg.

    `images` are the scenes of each split, such as {"train": 2000, "val": 500}. The same seed gives
    the same files. The folder must be new or empty.
    """
    folder = _new_folder(folder, image_size, look)
    for split, count in images.items():
        entries, objects = [], []
        (folder / split).mkdir()
        for number, scene in _numbered(split, count, image_size, seed, look, False, progress):
            name = f"{number:06d}.jpg"
            Image.fromarray(scene.image).save(folder / split / name, quality=_JPEG_QUALITY)
            height, width = scene.image.shape[:2]
            entries.append({"id": number, "file_name": name, "width": width, "height": height})
            for label, box in zip(scene.labels.tolist(), scene.boxes.tolist(), strict=True):
                left, top, right, bottom = box
                box, area = [left, top, right - left, bottom - top], (right - left) * (bottom - top)
                objects.append(coco_object(len(objects) + 1, number, label + 1, box, area))
        coco = {
            "info": {"description": f"Digits on photographs, {split}, seed {seed}"},
            "images": entries,
            "annotations": objects,
            "categories": coco_categories(range(1, 11), map(str, range(10))),
        }
        (folder / f"{split}.json").write_text(json.dumps(coco))


def write_digit_classes(folder, images, image_size, seed, *, look=Look(), progress=False):
    """As `write_digit_scenes`, with one digit in the centre: FOLDER/SPLIT/CLASS/*.jpg.

    With less than about a hundred images a class can be left empty, which `open_source` refuses.
    """
    folder = _new_folder(folder, image_size, look)
    for split, count in images.items():
        for digit in range(10):
            (folder / split / str(digit)).mkdir(parents=True)
        for number, scene in _numbered(split, count, image_size, seed, look, True, progress):
            path = folder / split / str(scene.labels[0]) / f"{number:06d}.jpg"
            Image.fromarray(scene.image).save(path, quality=_JPEG_QUALITY)


def _new_folder(folder, image_size, look):
    smallest = round(look.sides[0] * min(image_size))
    if smallest < SMALLEST_SIDE:
        raise ValueError(
            f"Digits of {smallest} pixels, {look.sides[0]} times the short side, are too small to "
            f"read; make them {SMALLEST_SIDE} or more."
        )
    folder = pathlib.Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give the images a folder of their own.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbered(split, count, image_size, seed, look, alone, progress):
    endless = scenes(split, image_size, seed, look=look, alone=alone)
    stream = zip(range(1, count + 1), endless, strict=False)
    return track(stream, f"{split}:", total=count, disable=not progress)
