"""Writes tiny detection data sets in COCO form: coloured rectangles on grey, as JPEG files."""

import json

import numpy as np
from PIL import Image

GREY = 120
# Category ids have gaps, as COCO's own; labels are their ranks.
COLOURS = {2: (230, 30, 30), 5: (30, 200, 30), 11: (40, 40, 230)}
NAMES = {2: "red", 5: "green", 11: "blue"}
SIZES = ((48, 72), (72, 48), (60, 60), (40, 64))  # height, width


def draw(height, width, objects):
    """A grey image, uint8 (H, W, 3), with rectangles (category id, left, top, width, height)."""
    image = np.full((height, width, 3), GREY, np.uint8)
    for category, left, top, box_width, box_height in objects:
        image[top : top + box_height, left : left + box_width] = COLOURS[category]
    return image


def random_objects(random, height, width):
    """One to three rectangles that do not overlap, as `draw` takes them."""
    strips = int(random.integers(1, 4))
    objects = []
    for strip in range(strips):
        first, last = width * strip // strips + 1, width * (strip + 1) // strips - 1
        box_width = int(random.integers((last - first) // 2, last - first + 1))
        box_height = int(random.integers(height // 4, height * 3 // 4))
        left = int(random.integers(first, last - box_width + 1))
        top = int(random.integers(0, height - box_height + 1))
        category = int(random.choice(list(COLOURS)))
        objects.append((category, left, top, box_width, box_height))
    return objects


def write_coco_form(root, counts=None, sizes=SIZES, seed=0, suffix=".jpg"):
    """Writes ROOT/{train,val}.json and ROOT/{train,val}/*.jpg.

    Args:
        root: a folder, made if it is not there.
        counts: images of each split, default {"train": 8, "val": 5}.
        sizes: (height, width) of the images, in turn.
        seed: decides the rectangles.
        suffix: ".jpg" or ".png".

    Returns:
        `root`.
    """
    random = np.random.default_rng(seed)
    for split, count in (counts or {"train": 8, "val": 5}).items():
        (root / split).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in range(count):
            height, width = sizes[number % len(sizes)]
            objects = random_objects(random, height, width)
            # Ids are in no order, as COCO's own.
            image = {"id": 1000 - 7 * number, "file_name": f"{number:03d}{suffix}"}
            images.append({**image, "width": width, "height": height})
            annotations += [
                {"image_id": image["id"], "category_id": category, "bbox": list(box)}
                for category, *box in objects
            ]
            Image.fromarray(draw(height, width, objects)).save(
                root / split / image["file_name"], quality=95, subsampling=0
            )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
        }
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def change_json(root, split, change):
    """Applies a function to the content of ROOT/SPLIT.json, which it changes in place."""
    path = root / f"{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
