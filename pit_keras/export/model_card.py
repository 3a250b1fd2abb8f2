"""The model card: `README.md` of an export folder, made from the run and the export's report.

One text for all models, then what classifiers and detectors put into it.
"""

import json

from pit_keras.export.agreement import SAME_BOX, SAME_SCORE
from pit_keras.export.export_report import REPORT_FILE
from pit_keras.export.formats import FORMATS, TOLERANCE
from pit_keras.export.tflite import tflite_size
from pit_keras.runs.found_objects import THRESHOLD
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_detector import TrainedDetector

CARD_FILE = "README.md"
MARK = "<!-- Written by pit-keras export; made anew by each. -->"
MOST_CLASSES = 20  # named one by one

# Programs that print what is in photo.jpg, by family: the likeliest class, or the objects.
_CROP = """\
from PIL import Image, ImageOps

photo = Image.open("photo.jpg").convert("RGB")
crop = ImageOps.fit(photo, ({width}, {height}), Image.Resampling.BICUBIC, bleed={bleed:.4g})
"""
_NAME = """\
print(open("classes.txt", encoding="utf-8").read().splitlines()[logits[0].argmax()])
"""
_CLASSIFIER_PROGRAMS = {
    "saved_model": """\
import tensorflow as tf

model = tf.saved_model.load("{path}")
photo = tf.io.read_file("photo.jpg")
outputs = model.signatures["serve_bytes"](image_bytes=photo[None])
print(outputs["top_classes"][0, 0].numpy().decode())
""",
    "tflite": f"""\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
{_CROP}\
classify = Interpreter("{{path}}", num_threads=2).get_signature_runner()
logits = classify(images=np.asarray(crop)[None]{{repeated}})["logits"]
{_NAME}""",
    "onnx": f"""\
import numpy as np
from onnxruntime import InferenceSession
{_CROP}\
session = InferenceSession("{{path}}")
(logits,) = session.run(["logits"], {{{{"images": np.asarray(crop)[None]}}}})
{_NAME}""",
}
_DETECTOR_PROGRAMS = {
    "saved_model": """\
import tensorflow as tf

model = tf.saved_model.load("{path}")
photo = tf.io.read_file("photo.jpg")
found = model.signatures["serve_bytes"](image_bytes=photo[None])
for at in range(int(found["count"][0])):  # those of a score of {threshold} or more
    name, score = found["classes"][0, at].numpy().decode(), float(found["scores"][0, at])
    print(name, score, found["boxes"][0, at].numpy())  # left, top, right, bottom in pixels
""",
    "tflite": """\
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
""",
}


def is_model_card(text):
    """Whether a text was written by `model_card`, and not by hand."""
    return text.startswith(MARK)


def model_card(trained, report):
    """The card as Markdown text.

    Args:
        trained: The `TrainedModel` or `TrainedDetector` that was exported; with its run folder the
            card says what it was trained on, how, and how well it does.
        report: The export's `Report`.
    """
    run = None if trained.folder is None else RunFolder(trained.folder)
    words = (_Detector if isinstance(trained, TrainedDetector) else _Classifier)(trained)
    sections = {
        "Files": _files(report, words),
        "Use": _use(report, words),
        "Preprocessing": f"{words.preprocessing()}\n",
        "Data and recipe": _data_and_recipe(run, words),
        "Results": _results(run, words),
        "Limits": _limits(report, words),
        "Licence": _licence(report),
    }
    parts = [MARK, _title(trained, report, run, words)]
    return "\n".join(parts + [f"## {heading}\n{text}" for heading, text in sections.items()])


def _title(trained, report, run, words):
    model, names = report.model, trained.class_names
    shown = ", ".join(f"`{name}`" for name in names[:MOST_CLASSES])
    rest = "" if len(names) <= MOST_CLASSES else f" and {len(names) - MOST_CLASSES:,} more"
    trained_on = "" if run is None else f", trained on `{run.read_config().data.dataset}`"
    return (
        f"# {model['name']}{trained_on}\n"
        f"{words.KIND} of {model['parameters']:,} parameters. {words.ability()}: {shown}{rest}. "
        "All of them, in the order of the outputs, are in `classes.txt`.\n"
    )


def _files(report, words):
    head = f"| {' | '.join(report.columns)} |\n|---|{'--:|' * (len(report.columns) - 1)}"
    rows = [f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in report.rows()]
    forced = [entry for entry in report.rejected if entry.written]
    warning = (
        f"\n**{_paths(forced)}: below what was asked for, and written all the same.**\n"
        if forced
        else ""
    )
    written = _written(report)
    compared = " or ".join(dict.fromkeys(entry.compared_on for entry in written))
    calibrated = "".join(
        f" `{entry.path}` was calibrated on {entry.calibrated_on}."
        for entry in written
        if entry.calibrated_on
    )
    return (
        "\n".join([head, *rows])
        + f"\n{warning}\nErrors are {words.ERRORS}, on {compared}, as many as the last column "
        f"says; {words.SAME}. Milliseconds are medians of one call on the machine that exported, "
        f"worth comparing with each other only.{calibrated} `{REPORT_FILE}` has all of it.\n"
    )


def _use(report, words):
    """A program for each family; TFLite files differ in their names only."""
    alike = {}
    for entry in _written(report):
        alike.setdefault((FORMATS[entry.format].family, entry.batch_size), []).append(entry)
    programs = []
    for (family, _), (first, *others) in alike.items():
        same = f" (the same lines run {_paths(others)})" if others else ""
        batch = first.batch_size
        repeated = "" if batch == 1 else f".repeat({batch}, axis=0)"
        values = {"path": first.path, "batch": batch, "repeated": repeated, **words.values()}
        program = words.PROGRAMS[family].format(**values)
        programs.append(f"`{first.path}`{same}:\n```python\n{program}```\n")
    return (
        "Run from this folder, with a picture `photo.jpg` in it; none of it needs `pit_keras`.\n\n"
        + "\n".join(programs)
    )


def _data_and_recipe(run, words):
    if run is None:
        return "Not known: the model was exported from a single file, not from a run folder.\n"
    config = run.read_config()
    data, training = config.data, config.training
    start = config.model.weights or "random weights"
    return (
        f"Data set: `{data.dataset}`. Recipe: `{config.recipe}`, {training.epochs} epochs of "
        f"batches of {training.images_of_update} from {start}{words.teacher(config)}, seed "
        f"{training.seed}; {words.optimizer(config)}. "
        f"Augmentation: {', '.join(words.augmentation(config))}. The run's `config.json` has every "
        "value.\n"
    )


def _results(run, words):
    if run is None or not run.results.exists():
        what = "The run has not ended" if run is not None else "Not known"
        return f"{what}: the Keras model's accuracy is not in this card.\n"
    results = json.loads(run.results.read_text())
    return (
        f"The Keras model on the {results['images']:,} images of the `{results['split']}` split of "
        f"`{results['dataset']}`{words.results(results)}\n"
    )


def _limits(report, words):
    counts = [entry.agreement.images for entry in report.entries.values() if entry.min_agreement]
    few = (
        f" They were compared on only {min(counts)} images, so shares are coarse."
        if counts and min(counts) < 100
        else ""
    )
    return (
        f"- {words.habit()}\n"
        "- It is as good as its data: on images of another kind (other cameras, light, framing) "
        "its accuracy is unknown until it is measured there.\n"
        f"- {_closeness(report, words)}{few}\n"
        f"- {words.BLIND_TO}\n"
    )


def _closeness(report, words):
    exact = [entry for entry in _written(report) if entry.min_agreement is None]
    rounded = [entry for entry in _written(report) if entry.min_agreement is not None]
    sentences = []
    if exact:
        sentences.append(f"{_paths(exact)}: within {TOLERANCE:.0e} {words.EXACT}.")
    if rounded:
        sentences.append(
            f"{_paths(rounded)}: rounded numbers, which decide differently now and then."
        )
    return " ".join(sentences)


def _licence(report):
    stated = report.license or (
        "Not stated by who exported it (`--license` says it). The software that made it, "
        "pit_keras, is under Apache-2.0; that says nothing of the weights, for which the data's "
        "terms may count"
    )
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return f"{stated.rstrip('.')}.\n\nMade with {versions}.\n"


def _written(report):
    return [entry for entry in report.entries.values() if entry.written]


def _paths(entries):
    return ", ".join(f"`{entry.path}`" for entry in entries)


def _numbers(values):
    return f"({', '.join(f'{value:g}' for value in values)})"


def _assumed(trained):
    return "" if trained.folder else " (assumed: there was no run folder to say so)"


class _Classifier:
    """What the card says of a `TrainedModel`."""

    KIND = "An image classifier"
    ERRORS = "differences of logits from the Keras model's"
    SAME = '"same top-1" is the share whose likeliest class is the same'
    EXACT = "of the Keras model's largest logit"
    BLIND_TO = "Only the middle of a long image is seen."
    PROGRAMS = _CLASSIFIER_PROGRAMS

    def __init__(self, trained):
        self._trained = trained

    def ability(self):
        """What it looks at and what it tells, up to the names of its classes."""
        height, width = self._trained.data.image_size
        return (
            f"It looks at {height} x {width} pixels (height before width) and tells "
            f"{len(self._trained.class_names):,} classes apart"
        )

    def values(self):
        """Those of the programs, which print the likeliest class of photo.jpg."""
        height, width = self._trained.data.image_size
        return {"height": height, "width": width, "bleed": (1 - self._trained.data.eval_crop) / 2}

    def preprocessing(self):
        """What happens to an image before the network."""
        data = self._trained.data
        height, width = data.image_size
        return (
            "RGB, 8 bits, as the file stores it: an orientation given in EXIF is not applied. The "
            "image is resized (bicubic, antialiased), its aspect kept, and the model sees the "
            f"middle {height} x {width} pixels: {data.eval_crop:.1%} of the short side"
            f"{_assumed(self._trained)}. These are normalised with mean {_numbers(data.mean)} and "
            f"standard deviation {_numbers(data.std)} of values in 0..1. The SavedModel does all "
            "of this; the other files take the crop as uint8 and normalise it."
        )

    def teacher(self, config):
        """What a run learned from beside the labels."""
        distilled = config.distillation
        if distilled.kind == "none":
            return ""
        return f", with `{distilled.teacher}` as teacher ({distilled.kind} distillation)"

    def optimizer(self, config):
        """The optimizer and its learning rate."""
        return f"AdamP, learning rate {config.optimizer.learning_rate:g} for a batch of 512"

    def augmentation(self, config):
        """What was done to the images."""
        steps = {
            "horizontal flips": config.data.flip,
            "RandAugment": config.data.rand_augment,
            "random erasing": config.data.erasing,
            "MixUp": config.data.mixup_alpha,
            "CutMix": config.data.cutmix_alpha,
        }
        return ["random resized crops", *(name for name, on in steps.items() if on)]

    def results(self, results):
        """How well the Keras model does, from the run's `results.json`."""
        return (
            f" (centre crop {results['eval_crop']:g}): top-1 {results['top1']:.2%}, top-5 "
            f"{results['top5']:.2%}. The files' accuracy was not measured by itself; the table "
            "above says how often they answer as the Keras model does."
        )

    def habit(self):
        """What it does that one may not expect."""
        return (
            f"It names one of its {len(self._trained.class_names):,} classes for every image, also "
            "for one that shows none of them. The probabilities are not calibrated."
        )


class _Detector:
    """What the card says of a `TrainedDetector`, by the methods that `_Classifier` has."""

    KIND = "An object detector (DETR)"
    ERRORS = "differences from the Keras model's scores and boxes (of these as shares of the image)"
    SAME = (
        f'"same objects" is the share of the objects, those of a score of {THRESHOLD} or more, '
        f"that have the same class, a score within {SAME_SCORE} and sides within {SAME_BOX:.0%} of "
        "the image's"
    )
    EXACT = "of the Keras model's scores and boxes"
    BLIND_TO = "Objects that are small in the resized image are found less often."
    PROGRAMS = _DETECTOR_PROGRAMS

    def __init__(self, trained):
        self._trained = trained

    def ability(self):
        return (
            f"It looks at whole images, {self._size()}, and draws boxes around objects of "
            f"{len(self._trained.class_names):,} classes"
        )

    def values(self):
        height, width = tflite_size(self._trained)
        return {"height": height, "width": width, "threshold": THRESHOLD}

    def preprocessing(self):
        data = self._trained.data
        height, width = tflite_size(self._trained)
        return (
            "RGB, 8 bits, as the file stores it: an orientation given in EXIF is not applied. The "
            "image is resized (bilinear, antialiased), its aspect kept, to "
            f"{self._size()}{_assumed(self._trained)}, and normalised with mean "
            f"{_numbers(data.mean)} and standard deviation {_numbers(data.std)} of values in 0..1; "
            "at the right and below it is filled up with zeros, which a mask hides. The SavedModel "
            f"does all of this. The other files take uint8 images of {height} x {width} pixels "
            "(height before width), zeros where they are filled up, and as `content` the height "
            "and width of the image therein."
        )

    def _size(self):
        if self._trained.fixed_size is not None:
            height, width = self._trained.fixed_size
            return f"fitted into {height} x {width} pixels (height before width)"
        short, long = self._trained.data.image_size
        return f"a short side of {short} pixels, the long side at most {long}"

    def teacher(self, config):
        return ""

    def optimizer(self, config):
        return (
            f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}, of the "
            f"backbone {config.detection.backbone_rate:g} times that"
        )

    def augmentation(self, config):
        steps = {
            "several sizes": config.detection.multi_scale,
            "random crops": config.detection.random_crop,
            "horizontal flips": config.data.flip,
        }
        return [name for name, on in steps.items() if on] or ["none"]

    def results(self, results):
        figures = ((name, results[name]) for name in ("AP", "AP50", "AP75"))
        words = ", ".join(
            f"{name} {'none' if figure is None else f'{figure:.1%}'}" for name, figure in figures
        )
        return (
            f", by COCO's metrics: {words}. The files' precision was not measured by itself; the "
            "table above says how often they find what the Keras model does."
        )

    def habit(self):
        queries = self._trained.model.output["logits"].shape[1]
        return (
            f"It finds at most {queries} objects in an image. The scores are not calibrated: "
            f"{THRESHOLD} is a usual threshold, another one may suit better."
        )
