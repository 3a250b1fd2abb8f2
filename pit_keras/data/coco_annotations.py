"""An annotation file in COCO form, checked entry by entry, and the boxes to train on."""

import collections
import json
import math
import textwrap

import numpy as np

MAX_OBJECTS = 100  # of an image, that are trained on; COCO's own metrics count as many
_SLACK = 1  # pixels that a box may reach beyond its image without a remark, as by rounding


def _is_box(value):
    return len(value) == 4 and all(map(math.isfinite, value)) and min(value[2:]) >= 0


def _is_line(value):  # the names of classes are stored as lines of a text file
    return value.strip() and value.splitlines() == [value] and value.encode()


_WHOLE = {"id", "image_id", "category_id", "width", "height"}
_ID = ("id", "a whole number", lambda value: type(value) is int)
_SIDE = ("a whole number of 1 or more", lambda value: type(value) is int and 0 < value < 2**31)
# Fields of an entry: the name, what the value must be, and a function that says whether it is that,
# or raises.
_IMAGE = (
    _ID,
    ("file_name", "a string", lambda value: type(value) is str),
    ("width", *_SIDE),
    ("height", *_SIDE),
)
_CATEGORY = (_ID, ("name", "one line of text", _is_line))
_ANNOTATION = (
    ("bbox", "left, top, width and height, finite, no side negative", _is_box),
    ("area", "a number of 0 or more", lambda value: value is None or 0 <= value < math.inf),
    ("iscrowd", "0 or 1", lambda value: value in (None, 0, 1)),
)


def _tidied(field, value):
    """A value as it was before a table made 1.0 or "1" of 1, and NaN of a gap."""
    if field in _WHOLE:
        if isinstance(value, str) and value.isdecimal() and len(value) < 19:
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def read_annotations(path):
    """The checked content of a file, with all that pycocotools needs and without outlines.

    Categories are in the order of their ids. The annotations' ids are their numbers from 1:
    pycocotools takes a match with id 0 for none, and of those with equal ids it sees one only. In a
    file of another form, a ValueError names the entry.
    """
    content = _load(path)
    images = _entries(path, content, "images", _IMAGE)
    categories = _entries(path, content, "categories", _CATEGORY)
    image_ids = unique(path, images, "images", "id")
    category_ids = unique(path, categories, "categories", "id")
    references = (
        ("image_id", "the id of one of the images", image_ids.__contains__),
        ("category_id", "the id of one of the categories", category_ids.__contains__),
    )
    annotations = _entries(path, content, "annotations", (*_ANNOTATION, *references))
    for number, annotation in enumerate(annotations, 1):
        annotation["id"], annotation["iscrowd"] = number, int(annotation.get("iscrowd") or 0)
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        annotation["bbox"] = _upright(annotation["bbox"], annotation.get("attributes"))
    categories.sort(key=lambda category: category["id"])
    return {"images": images, "annotations": annotations, "categories": categories}


def _upright(box, attributes):
    """The box around one that CVAT stores unturned beside its rotation in degrees."""
    degrees = attributes.get("rotation") if isinstance(attributes, dict) else None
    if not degrees or not isinstance(degrees, (int, float)) or not math.isfinite(degrees):
        return box
    left, top, width, height = box
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    across, down = width * cosine + height * sine, width * sine + height * cosine
    return [left + (width - across) / 2, top + (height - down) / 2, across, down]


def without_groups(contents):
    """Drops categories that only group others: of no box, and the supercategory of another."""
    used = {each["category_id"] for content in contents for each in content["annotations"]}
    for content in contents:
        parents = [(each.get("supercategory"), each["id"]) for each in content["categories"]]
        content["categories"] = [
            each
            for each in content["categories"]
            if each["id"] in used
            or all(name != each["name"] or child == each["id"] for name, child in parents)
        ]


def training_boxes(content, path):
    """The boxes to train on: no crowd, clipped to the image, the 100 largest of each image.

    Returns:
        Ordered by image, boxes, float32 (K, 4), left, top, right, bottom in pixels; labels, int64
        (K,), the ranks of the category ids; starts, int64 (N + 1,): the boxes of image n are
        starts[n] to starts[n + 1]. And a sentence on boxes that were clipped or left out, or "".
        Boxes that are not in COCO's units are a ValueError.
    """
    annotations = content["annotations"]
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64)
    is_single = np.array([not annotation["iscrowd"] for annotation in annotations])
    images, labels = _ranks(content, "images"), _ranks(content, "categories")
    sizes = np.array([(image["width"], image["height"]) for image in content["images"]])
    _check_units(boxes, sizes[images], path)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    clipped = np.clip(corners, 0, np.tile(sizes[images], 2))
    beyond = np.abs(corners - clipped).max(axis=1)
    clipped = clipped.astype(np.float32)
    sides = clipped[:, 2:] - clipped[:, :2]
    has_area = (boxes[:, 2:] > 0).all(axis=1)
    is_kept = is_single & (sides > 0).all(axis=1)
    kept = np.flatnonzero(is_kept)
    # Within each image the largest first, so that a box's rank is its distance from the first.
    by_size = kept[np.lexsort((-np.prod(sides[kept], axis=1), images[kept]))]
    counts = np.bincount(images[kept], minlength=len(sizes))
    rank = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.sort(by_size[rank < MAX_OBJECTS])
    order = chosen[np.argsort(images[chosen], kind="stable")]
    remarks = (
        (is_kept & (beyond > _SLACK), "clipped to their image"),
        (is_single & has_area & ~is_kept, "outside of it (left out)"),
        (is_single & ~has_area, "without area (left out)"),
        (counts > MAX_OBJECTS, f"images of which only the {MAX_OBJECTS} largest are kept"),
    )
    remark = ", ".join(f"{where.sum()} {text}" for where, text in remarks if where.any())
    starts = np.cumsum([0, *np.minimum(counts, MAX_OBJECTS)])
    remark = remark and f"{path} has {len(boxes)} boxes: {remark}."
    return clipped[order], labels[order], starts, remark


def _check_units(boxes, sizes, path):
    """Refuses shares of the image, and two corners, for left, top, width and height in pixels."""
    first, last = boxes[:, :2], boxes[:, 2:]
    are_sides = (first + last <= sizes + _SLACK).all(axis=1)
    are_corners = ((first < last) & (last <= sizes + _SLACK)).all(axis=1)
    problem = None
    if boxes.max() <= 1:
        problem = "is at most 1, as in shares of the image"
    elif are_corners.all() and 2 * are_sides.sum() < len(boxes):
        problem = "fits its image as left, top, right, bottom only"
    if problem:
        raise ValueError(
            f'{path}: every "bbox" {problem}; write left, top, width and height in pixels.'
        )


def coco_object(number, image_id, category_id, bbox, area, iscrowd=0):
    """One of the "annotations" of COCO's form; `bbox` is left, top, width and height."""
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": area,
        "iscrowd": int(iscrowd),
    }


def coco_categories(category_ids, class_names):
    pairs = zip(category_ids, class_names, strict=True)
    return [{"id": number, "name": name} for number, name in pairs]


def _load(path):
    """The JSON in a file, without the outlines, which would be most of it."""

    def without_outline(entry):
        entry.pop("segmentation", None)
        return entry

    try:
        with open(path, "rb") as file:
            encoding = json.detect_encoding(file.read(4))  # which may have a byte order mark
        with open(path, encoding=encoding) as file:
            return json.load(file, object_hook=without_outline)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8; save it as that ({error}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error


def _entries(path, content, part, fields):
    entries = content.get(part) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else "no fields"
        raise ValueError(
            f'{path} needs a list of "{part}" that is not empty, as in COCO\'s form; it has '
            f"{textwrap.shorten(found, 100)}."
        )
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {part}[{number}] is not a JSON object.")
        for field, wanted, is_valid in fields:
            value = entry.get(field)
            if value is not (tidied := _tidied(field, value)):
                value = entry[field] = tidied
            try:
                valid = is_valid(value)
            except (AttributeError, OverflowError, TypeError, ValueError):
                valid = False
            if not valid:
                name = f"{part}[{number}]" + (f" (id {entry['id']})" if "id" in entry else "")
                found = f"{entry[field]!r}" if field in entry else "none"
                raise ValueError(f'{path}: {name} needs "{field}", {wanted}; it has {found}.')
    return entries


def unique(path, entries, part, field):
    counts = collections.Counter(entry[field] for entry in entries)
    ((value, count),) = counts.most_common(1)
    if count > 1:
        raise ValueError(f'{path}: {count} {part} have the "{field}" {value!r}; it must be unique.')
    return counts.keys()


def _ranks(content, part):
    """The place of each annotation's image or category in its list, int64 (T,)."""
    field = {"images": "image_id", "categories": "category_id"}[part]
    ranks = {entry["id"]: rank for rank, entry in enumerate(content[part])}
    return np.array([ranks[entry[field]] for entry in content["annotations"]], np.int64)
