"""What a model card says of detectors; `classifier_card` says the same of classifiers."""

from pit_keras.export.agreement import SAME_BOX, SAME_SCORE
from pit_keras.export.classifier_card import numbers
from pit_keras.export.detector_tflite import tflite_size
from pit_keras.export.formats import FORMATS
from pit_keras.runs.found_objects import THRESHOLD

KIND = "An object detector (DETR)"
ERRORS = "differences from the Keras model's scores and boxes (of these as shares of the image)"
SAME = (
    f'"same objects" is the share of the objects, those of a score of {THRESHOLD} or more, that '
    f"have the same class, a score within {SAME_SCORE} and sides within {SAME_BOX:.0%} of the "
    "image's"
)
EXACT = "of the Keras model's scores and boxes"

SAVED_MODEL = """\
import tensorflow as tf

model = tf.saved_model.load("{path}")
photo = tf.io.read_file("photo.jpg")
found = model.signatures["serve_bytes"](image_bytes=photo[None])
for at in range(int(found["count"][0])):  # those of a score of {threshold} or more
    name, score = found["classes"][0, at].numpy().decode(), float(found["scores"][0, at])
    print(name, score, found["boxes"][0, at].numpy())  # left, top, right, bottom in pixels
"""
TFLITE = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

photo = Image.open("photo.jpg").convert("RGB")
scale = min({width} / photo.width, {height} / photo.height)
size = [max(1, int(side * scale)) for side in photo.size]
images = np.zeros(({batch}, {height}, {width}, 3), np.uint8)
images[0, : size[1], : size[0]] = photo.resize(size, Image.Resampling.BILINEAR)
content = np.array([[size[1], size[0]]] * {batch}, np.int32)
detect = Interpreter("{path}", num_threads=2).get_signature_runner()
found = detect(images=images, content=content)
names = open("classes.txt", encoding="utf-8").read().splitlines()
for box, score, label in zip(found["boxes"][0], found["scores"][0], found["labels"][0]):
    if score >= {threshold}:  # left, top, right, bottom in pixels
        print(names[label], score, box * ([photo.width, photo.height] * 2))
"""


def ability(trained):
    """What it looks at and what it tells, up to the names of its classes."""
    return (
        f"It looks at whole images, {_size(trained)}, and draws boxes around objects of "
        f"{len(trained.class_names):,} classes"
    )


def snippet(entry, trained):
    """A few lines of Python that print the objects in photo.jpg."""
    if FORMATS[entry.format].family == "saved_model":
        return SAVED_MODEL.format(path=entry.path, threshold=THRESHOLD)
    height, width = tflite_size(trained)
    return TFLITE.format(
        path=entry.path, threshold=THRESHOLD, height=height, width=width, batch=entry.batch_size
    )


def preprocessing(trained):
    """What happens to an image before the network."""
    data = trained.data
    height, width = tflite_size(trained)
    assumed = "" if trained.folder else " (assumed: there was no run folder to say so)"
    return (
        "RGB, 8 bits, as the file stores it: an orientation given in EXIF is not applied. The "
        f"image is resized (bilinear, antialiased), its aspect kept, to {_size(trained)}{assumed}, "
        f"and normalised with mean {numbers(data.mean)} and standard deviation "
        f"{numbers(data.std)} of values in 0..1; at the right and below it is filled up with "
        "zeros, which a mask hides. The SavedModel does all of this. The other files take uint8 "
        f"images of {height} x {width} pixels (height before width), zeros where they are filled "
        "up, and as `content` the height and width of the image therein.\n"
    )


def _size(trained):
    if trained.fixed_size is not None:
        height, width = trained.fixed_size
        return f"fitted into {height} x {width} pixels (height before width)"
    short, long = trained.data.image_size
    return f"a short side of {short} pixels, the long side at most {long}"


def teacher(config):
    """What a run learned from beside the boxes."""
    return ""


def optimizer(config):
    """The optimizer and its learning rate."""
    return (
        f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}, of the "
        f"backbone {config.detection.backbone_rate:g} times that"
    )


def augmentation(config):
    """What was done to the images."""
    steps = {
        "several sizes": config.detection.multi_scale,
        "random crops": config.detection.random_crop,
        "horizontal flips": config.data.flip,
    }
    return [name for name, on in steps.items() if on] or ["none"]


def results(results):
    """How well the Keras model does, from the run's `results.json`."""
    figures = ((name, results[name]) for name in ("AP", "AP50", "AP75"))
    words = ", ".join(
        f"{name} {'none' if figure is None else f'{figure:.1%}'}" for name, figure in figures
    )
    return (
        f"The Keras model on the {results['images']:,} images of the `{results['split']}` split of "
        f"`{results['dataset']}`, by COCO's metrics: {words}. The files' precision was not "
        "measured by itself; the table above says how often they find what the Keras model does.\n"
    )


def habits(trained):
    """What it does that one may not expect, first and last of the limits."""
    queries = trained.model.output["logits"].shape[1]
    return (
        f"It finds at most {queries} objects in an image. The scores are not calibrated: "
        f"{THRESHOLD} is a usual threshold, another one may suit better.",
        "Objects that are small in the resized image are found less often.",
    )
