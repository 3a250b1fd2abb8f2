"""An annotation file in COCO form, read and checked as a whole, into arrays.

Of an image "id", "file_name", "width" and "height" are used, of a category "id" and "name", of an
annotation "image_id", "category_id", "bbox" (left, top, width, height in pixels) and, where there
are any, "area" and "iscrowd". Outlines are not: detection takes and is measured by boxes.
"""

import collections
import dataclasses
import itertools
import json
import math

import numpy as np

MAX_OBJECTS = 100  # of an image, that are trained on; COCO's own metrics count as many
PARTS = ("images", "annotations", "categories")
_BOX = '"bbox", four finite numbers: left, top, width and height, the last two not negative'
_SLACK = 1  # pixels that a box may reach beyond its image without being told of, as by rounding


@dataclasses.dataclass(frozen=True)
class CocoAnnotations:
    """What one file says. Labels are the ranks of the category ids, from 0.

    Attributes:
        path: the file.
        image_ids, file_names: of each image, tuples of N.
        image_sizes: int64 (N, 2), height and width.
        category_ids, class_names: of each label, tuples.
        boxes: float64 (T, 4) of all annotations, as they are stored: left, top, width, height.
        areas: float64 (T,), that of the box where none is stored.
        crowd: bool (T,), whether an annotation stands for many objects that are not told apart.
        images: int64 (T,), the number of its image.
        labels: int64 (T,).
    """

    path: str
    image_ids: tuple[int, ...]
    file_names: tuple[str, ...]
    image_sizes: np.ndarray
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class TrainingBoxes:
    """The boxes of a file that are trained on, ordered by image.

    Attributes:
        boxes: float32 (K, 4), left, top, right, bottom in pixels, clipped to the image.
        labels: int64 (K,).
        starts: int64 (N + 1,): those of image n are starts[n] to starts[n + 1].
        remark: one sentence on what was done to the others, or "".
    """

    boxes: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    remark: str


def read_annotations(path):
    """Reads and checks a file.

    Raises:
        ValueError: it is no JSON, lacks something, or says what cannot be; the sentence says where.
    """
    content = _load(path)
    images, annotations, categories = (_entries(content, part, path) for part in PARTS)
    image_ids = _unique(_column(images, path, "images", "id", int), path, "images", "id")
    file_names = _column(images, path, "images", "file_name", str)
    sizes = [
        _floats(_column(images, path, "images", side, int), path, "images", side, least=1)
        for side in ("height", "width")
    ]
    ids = _unique(_column(categories, path, "categories", "id", int), path, "categories", "id")
    names = _column(categories, path, "categories", "name", str)
    _check_names(_unique(names, path, "categories", "name"), path)
    ranked = sorted(zip(ids, names, strict=True))
    category_ids, class_names = zip(*ranked, strict=True)
    boxes = _boxes(annotations, path)
    return CocoAnnotations(
        path=path,
        image_ids=tuple(image_ids),
        file_names=tuple(file_names),
        image_sizes=np.stack(sizes, axis=1).astype(np.int64),
        category_ids=category_ids,
        class_names=class_names,
        boxes=boxes,
        areas=_areas(annotations, boxes, path),
        crowd=_crowd(annotations, path),
        images=_references(annotations, path, "image_id", image_ids, "images"),
        labels=_references(annotations, path, "category_id", category_ids, "categories"),
    )


def training_boxes(annotations):
    """The boxes to train on: no crowd, clipped to the image, of each image the 100 largest."""
    left, top, width, height = annotations.boxes.T
    image_height, image_width = annotations.image_sizes[annotations.images].T
    beyond = np.maximum.reduce(
        [-left, -top, left + width - image_width, top + height - image_height]
    )
    limits = np.stack([image_width, image_height, image_width, image_height], axis=1)
    corners = np.stack([left, top, left + width, top + height], axis=1)
    clipped = np.clip(corners, 0, limits).astype(np.float32)
    sides = clipped[:, 2:] - clipped[:, :2]
    single = ~annotations.crowd
    has_area = (width > 0) & (height > 0)
    kept = single & np.all(sides > 0, axis=1)
    chosen, crowded = _largest(np.prod(sides, axis=1), annotations, kept)
    order = chosen[np.argsort(annotations.images[chosen], kind="stable")]
    counts = np.bincount(annotations.images[order], minlength=len(annotations.image_ids))
    remarks = {
        f"reach more than {_SLACK} pixel beyond their image and are clipped": kept
        & (beyond > _SLACK),
        "lie outside of their image and are not trained on": single & has_area & ~kept,
        "have no area and are not trained on": single & ~has_area,
    }
    return TrainingBoxes(
        boxes=clipped[order],
        labels=annotations.labels[order],
        starts=np.concatenate([[0], np.cumsum(counts)]),
        remark=_remark(annotations, remarks, crowded),
    )


def ground_truth(annotations):
    """The content of the file with all that pycocotools asks for, as a dict in COCO's form.

    The annotations' ids are their numbers from 1: pycocotools takes a match with id 0 for none, and
    of those with equal ids it sees one only.
    """
    sizes = annotations.image_sizes.tolist()
    numbered = zip(annotations.image_ids, annotations.file_names, sizes, strict=True)
    columns = (annotations.boxes, annotations.areas, annotations.crowd)
    images, labels = annotations.images.tolist(), annotations.labels.tolist()
    boxes = zip(images, labels, *(column.tolist() for column in columns), strict=True)
    return {
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, name, (height, width) in numbered
        ],
        "annotations": [
            {
                "id": number,
                "image_id": annotations.image_ids[image],
                "category_id": annotations.category_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for number, (image, label, box, area, crowd) in enumerate(boxes, 1)
        ],
        "categories": categories(annotations.category_ids, annotations.class_names),
    }


def categories(category_ids, class_names):
    """The "categories" of COCO's form."""
    return [
        {"id": number, "name": name} for number, name in zip(category_ids, class_names, strict=True)
    ]


def _load(path):
    """The JSON object in a file, without the outlines, which would be most of it."""

    def without_outline(entry):
        entry.pop("segmentation", None)
        return entry

    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file, object_hook=without_outline)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object with {', '.join(PARTS)}.")
    return content


def _entries(content, part, path):
    """A list of JSON objects that is not empty."""
    entries = content.get(part)
    if not isinstance(entries, list):
        lack = "is not a list" if part in content else "is missing"
        raise ValueError(f"{path} must be a JSON object with {', '.join(PARTS)}; {part} {lack}.")
    if not entries:
        raise ValueError(f"{path} has no {part}.")
    if set(map(type, entries)) != {dict}:
        number = next(n for n, entry in enumerate(entries) if type(entry) is not dict)
        raise ValueError(f"{path}: {part}[{number}] is not a JSON object.")
    return entries


def _column(entries, path, part, key, *kinds, default=None):
    """One value of each entry, of one of the exact types `kinds`."""
    values = [entry.get(key, default) for entry in entries]
    if not set(map(type, values)) <= set(kinds):
        number = next(n for n, value in enumerate(values) if type(value) not in kinds)
        wanted = f'"{key}", a ' + ("string" if str in kinds else "whole number")
        _refuse(entries[number], path, part, number, key, wanted)
    return values


def _check_names(names, path):
    """Names are written as lines of a text file."""
    for name in names:
        is_text = name.encode(errors="replace").decode() == name
        if not is_text or name.splitlines() != [name] or not name.strip():
            raise ValueError(
                f"{path} has a category of the name {name!r}; a name must be one line of text."
            )


def _unique(values, path, part, key):
    if len(set(values)) < len(values):
        value = next(value for value, count in collections.Counter(values).items() if count > 1)
        raise ValueError(f'{path}: several {part} have the "{key}" {value!r}; each needs its own.')
    return values


def _references(annotations, path, key, ids, part):
    """The numbers of the images or labels that the annotations name, int64 (T,)."""
    named = _column(annotations, path, "annotations", key, int)
    numbers = {value: number for number, value in enumerate(ids)}
    found = np.fromiter((numbers.get(value, -1) for value in named), np.int64, len(named))
    if found.min() < 0:
        number = int(np.argmax(found < 0))
        raise ValueError(
            f'{path}: {_name(annotations[number], "annotations", number)} has the "{key}" '
            f"{named[number]}, which none of the {part} has."
        )
    return found


def _boxes(annotations, path):
    boxes = [annotation.get("bbox") for annotation in annotations]
    if not _are_boxes(boxes):
        number = next(n for n, box in enumerate(boxes) if not _are_boxes([box]))
        _refuse(annotations[number], path, "annotations", number, "bbox", _BOX)
    values = _as_floats(list(itertools.chain.from_iterable(boxes))).reshape(-1, 4)
    wrong = ~np.isfinite(values).all(axis=1) | (values[:, 2:] < 0).any(axis=1)
    if wrong.any():
        number = int(np.argmax(wrong))
        _refuse(annotations[number], path, "annotations", number, "bbox", _BOX)
    return values


def _are_boxes(boxes):
    """Whether all are lists of four numbers."""
    return (
        set(map(type, boxes)) == {list}
        and set(map(len, boxes)) == {4}
        and set(map(type, itertools.chain.from_iterable(boxes))) <= {int, float}
    )


def _areas(annotations, boxes, path):
    """The stored areas, and those of the boxes where there are none."""
    stored = _column(annotations, path, "annotations", "area", int, float, type(None))
    present = np.fromiter((area is not None for area in stored), bool, len(stored))
    areas = _floats([area or 0 for area in stored], path, "annotations", "area", least=0)
    return np.where(present, areas, boxes[:, 2] * boxes[:, 3])


def _crowd(annotations, path):
    stored = _column(annotations, path, "annotations", "iscrowd", int, bool, default=0)
    if not set(stored) <= {0, 1}:
        number = next(n for n, value in enumerate(stored) if value not in (0, 1))
        _refuse(annotations[number], path, "annotations", number, "iscrowd", '"iscrowd", 0 or 1')
    return np.array(stored, bool)


def _floats(values, path, part, key, least):
    """Finite numbers that are not less than `least`, float64."""
    numbers = _as_floats(values)
    wrong = ~np.isfinite(numbers) | (numbers < least)
    if wrong.any():
        number = int(np.argmax(wrong))
        raise ValueError(
            f'{path}: {part}[{number}] must have "{key}" of {least} or more; it has '
            f"{values[number]!r}."
        )
    return numbers


def _as_floats(values):
    try:
        return np.array(values, np.float64)
    except OverflowError:  # a whole number of more than 308 digits
        return np.array([value if abs(value) < 1e300 else math.inf for value in values])


def _refuse(entry, path, part, number, key, wanted):
    found = f"it has {entry[key]!r}" if key in entry else "it has none"
    raise ValueError(f"{path}: {_name(entry, part, number)} must have {wanted}; {found}.")


def _name(entry, part, number):
    """`annotations[3] (id 17)`."""
    return f"{part}[{number}]" + (f" (id {entry['id']})" if "id" in entry else "")


def _largest(areas, annotations, kept):
    """The numbers of the kept boxes, of each image at most the largest 100, in their order.

    Also tells how many images have more.
    """
    numbers = np.flatnonzero(kept)
    images = annotations.images[numbers]
    counts = np.bincount(images, minlength=len(annotations.image_ids))
    before = np.cumsum(counts) - counts
    by_size = np.lexsort((-areas[numbers], images))  # of one image the largest first
    rank = np.arange(len(numbers)) - before[images[by_size]]
    return np.sort(numbers[by_size[rank < MAX_OBJECTS]]), int((counts > MAX_OBJECTS).sum())


def _remark(annotations, remarks, crowded):
    counts = [f"{int(chosen.sum())} {text}" for text, chosen in remarks.items() if chosen.any()]
    if crowded:
        counts.append(
            f"in {crowded} images with more than {MAX_OBJECTS} objects only the {MAX_OBJECTS} "
            "largest are trained on"
        )
    boxes = f"Of the {len(annotations.boxes)} boxes in {annotations.path}"
    return f"{boxes} {', '.join(counts)}." if counts else ""
