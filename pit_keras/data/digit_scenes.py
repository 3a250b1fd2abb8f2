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

from pit_keras.data.labelled_images import open_source

MAX_OVERLAP = 0.1  # of two boxes: their intersection over the smaller one
MIN_CONTRAST = 80  # of a digit to what is below it, in levels of luminance of 255
WHITE = (255.0, 255.0, 255.0)
SMALLEST_SIDE = 10  # pixels of an enlarged scan, of which less could not be read

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
    """How many digits an image has, how large they are, and how they stand out.

    Attributes:
        most: The most digits of an image; the fewest are 1.
        sides: The smallest and the largest side of an enlarged scan, as shares of the image's short
            side.
        white: Whether the digits are white and the photographs darker, instead of any colours that
            stand out.

    Raises:
        ValueError: If there would be no digit, or no room for so many.
    """

    most: int = 6
    sides: tuple[float, float] = (0.16, 0.40)
    white: bool = False

    def __post_init__(self):
        smallest, largest = self.sides
        if self.most < 1 or not 0 < smallest <= largest <= 1:
            raise ValueError(
                "An image has 1 digit or more, with sides of 0 < smallest <= largest <= 1 times "
                f"its short side; got at most {self.most} digits of {smallest} to {largest}."
            )
        if self.most * largest**2 > 1:
            raise ValueError(
                f"There is no room for {self.most} digits of {largest} times the short side."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """An image with its n digits, the later ones drawn over the earlier ones.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: int (n, 4), left, top, right, bottom in pixels, tight around the ink that is drawn.
        labels: int (n,), the digits.
        scans: int (n,), which scans of the split these are.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scans: np.ndarray


def scenes(split, image_size, seed, *, look=Look(), alone=False):
    """An endless stream of `Scene`s, the same ones for the same arguments.

    The scans are shuffled and dealt; none is drawn again before all others were. So the classes are
    as balanced as the scans.

    Args:
        split: "train" or "val".
        image_size: Height and width.
        seed: A natural number.
        look: How many digits, of what size.
        alone: One digit in the centre of each image, to classify, instead of some anywhere.

    Raises:
        ValueError: If the images would be too small for digits that can be read.
    """
    _check_readable(image_size, look)
    return _scenes(split, image_size, seed, look, alone)


def _check_readable(image_size, look):
    smallest = round(look.sides[0] * min(image_size))
    if smallest < SMALLEST_SIDE:
        raise ValueError(
            f"Digits can be read from {SMALLEST_SIDE} pixels a side on, not of {smallest} as in "
            f"{image_size[0]} x {image_size[1]} with {look.sides[0]} times the short side."
        )


def _scenes(split, image_size, seed, look, alone):
    digits, photographs = open_source("digits"), photograph_parts()
    scans, labels = digits.images[split][..., 0].numpy() / 255, digits.labels[split].numpy()
    crop = _largest_crop(photographs["val"][0].shape, image_size)
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


def _largest_crop(photograph_shape, image_size):
    """Height and width of the largest crop of an image's form; both splits are cut to its size."""
    scale = min(photograph_shape[0] / image_size[0], photograph_shape[1] / image_size[1])
    return scale * image_size[0], scale * image_size[1]


def _background(photographs, largest_crop, image_size, brightness, rng):
    """A part of one of the photographs, flipped or not, darker or brighter: float (H, W, 3)."""
    photograph = photographs[rng.integers(len(photographs))]
    height, width = rng.uniform(*_CROPS) * np.array(largest_crop)
    top = rng.uniform(0, photograph.shape[0] - height)
    left = rng.uniform(0, photograph.shape[1] - width)
    part = Image.fromarray(photograph).resize(
        image_size[::-1], Image.Resampling.BICUBIC, (left, top, left + width, top + height)
    )
    pixels = np.asarray(part)[:, :: rng.choice([-1, 1])]
    return np.clip(pixels * rng.uniform(*brightness), 0, 255)


def lay_out(scans, image_size, sides, rng, alone=False):
    """Enlarges scans and finds places for them, with new sizes until there is room for all.

    Args:
        scans: float (n, 8, 8) in 0..1.
        image_size: Height and width.
        sides: See `Look`.
        rng: NumPy's generator.
        alone: Whether the one scan belongs in the centre.

    Returns:
        The opacities of their ink, n arrays as large as their boxes; the boxes, int (n, 4).
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
    """Enlarges a scan smoothly to so many pixels a side; the opacity of its ink, cut to the ink."""
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
    """Draws ink over a background, each digit in one colour.

    Args:
        below: float (H, W, 3) in 0..255.
        inks: Opacities in 0..1, as large as the boxes.
        boxes: int (n, 4), left, top, right, bottom.
        rng: NumPy's generator.
        colour: RGB in 0..255; None for a random one for each digit, which stands out.

    Returns:
        The image, uint8 (H, W, 3).
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

    Args:
        folder: Made if need be.
        images: How many scenes of each split, such as {"train": 2000, "val": 500}.
        image_size: Height and width.
        seed: A natural number; the same one gives the same files.
        look: How many digits, of what size.
        progress: Whether to show a bar.

    Raises:
        FileExistsError: If the folder is not empty.
        ValueError: If the images are too small.
    """
    _check_readable(image_size, look)
    folder = _new_folder(folder)
    for split, count in images.items():
        coco = {"info": {"description": f"Digits on photographs, {split}, seed {seed}"}}
        coco |= {"images": [], "annotations": []}
        coco["categories"] = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
        (folder / split).mkdir()
        for number, scene in _numbered(split, count, image_size, seed, look, False, progress):
            name = f"{number:06d}.jpg"
            Image.fromarray(scene.image).save(folder / split / name, quality=_JPEG_QUALITY)
            height, width = scene.image.shape[:2]
            coco["images"].append(
                {"id": number, "file_name": name, "width": width, "height": height}
            )
            coco["annotations"] += _annotations(scene, number, len(coco["annotations"]) + 1)
        (folder / f"{split}.json").write_text(json.dumps(coco))


def _annotations(scene, image_id, first_id):
    return [
        {
            "id": first_id + offset,
            "image_id": image_id,
            "category_id": int(label) + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        for offset, ((left, top, right, bottom), label) in enumerate(
            zip(scene.boxes.tolist(), scene.labels, strict=True)
        )
    ]


def write_digit_classes(folder, images, image_size, seed, *, look=Look(), progress=False):
    """Writes images with one digit in the centre as FOLDER/SPLIT/CLASS/*.jpg, to classify.

    The arguments are those of `write_digit_scenes`, and so are the errors.
    With less than about a hundred images a class can be left empty, which `open_source` refuses.
    """
    _check_readable(image_size, look)
    folder = _new_folder(folder)
    for split, count in images.items():
        for digit in range(10):
            (folder / split / str(digit)).mkdir(parents=True)
        for number, scene in _numbered(split, count, image_size, seed, look, True, progress):
            path = folder / split / str(scene.labels[0]) / f"{number:06d}.jpg"
            Image.fromarray(scene.image).save(path, quality=_JPEG_QUALITY)


def _new_folder(folder):
    folder = pathlib.Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give the images a folder of their own.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbered(split, count, image_size, seed, look, alone, progress):
    """The first scenes of a split, numbered from 1."""
    endless = scenes(split, image_size, seed, look=look, alone=alone)
    stream = zip(range(1, count + 1), endless, strict=False)
    return track(stream, f"{split}:", total=count, disable=not progress)
