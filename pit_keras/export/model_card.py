"""The model card: `README.md` of an export folder, made from the run and the export's report."""

import json

from pit_keras.export.formats import FORMATS, TOLERANCE
from pit_keras.export.report import COLUMNS, REPORT_FILE
from pit_keras.training.run_folder import RunFolder

CARD_FILE = "README.md"
MARK = "<!-- Written by pit-keras export; made anew by each. -->"
MOST_CLASSES = 20  # named one by one

PILLOW = """\
import numpy as np
from PIL import Image, ImageOps
{imports}
photo = Image.open("photo.jpg").convert("RGB")
crop = ImageOps.fit(photo, ({width}, {height}), Image.Resampling.BICUBIC, bleed={bleed:.4g})
"""


def is_model_card(text):
    """Whether a text was written by `model_card`, and not by hand."""
    return text.startswith(MARK)


def model_card(trained, report):
    """The card as Markdown text.

    Args:
        trained: The `TrainedModel` that was exported; with its run folder the card says what it was
            trained on, how, and how well it does.
        report: The export's `Report`.
    """
    run = None if trained.folder is None else RunFolder(trained.folder)
    parts = [
        MARK,
        _title(trained, report, run),
        _files(report),
        _use(trained, report),
        _preprocessing(trained),
        _data_and_recipe(trained, run),
        _results(run),
        _limits(trained, report),
        _licence(report),
    ]
    return "\n".join(parts)


def _title(trained, report, run):
    model, names = report.model, trained.class_names
    height, width = model["image_size"]
    shown = ", ".join(f"`{name}`" for name in names[:MOST_CLASSES])
    rest = "" if len(names) <= MOST_CLASSES else f" and {len(names) - MOST_CLASSES:,} more"
    trained_on = "" if run is None else f", trained on `{run.read_config().data.dataset}`"
    return (
        f"# {model['name']}{trained_on}\n"
        f"An image classifier of {model['parameters']:,} parameters. It looks at {height} x "
        f"{width} pixels (height before width) and tells {len(names):,} classes apart: "
        f"{shown}{rest}. "
        "All of them, in the order of the outputs, are in `classes.txt`.\n"
    )


def _files(report):
    head = f"| {' | '.join(COLUMNS)} |\n|---|{'--:|' * (len(COLUMNS) - 1)}"
    rows = [f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in report.rows()]
    forced = [f"`{entry.path}`" for entry in report.rejected if entry.written]
    warning = (
        f"\n**{', '.join(forced)}: below what was asked for, and written all the same.**\n"
        if forced
        else ""
    )
    written = [entry for entry in report.entries.values() if entry.written]
    compared = " or ".join(dict.fromkeys(entry.compared_on for entry in written))
    calibrated = "".join(
        f" `{entry.path}` was calibrated on {entry.calibrated_on}."
        for entry in written
        if entry.calibrated_on
    )
    return (
        "## Files\n"
        + "\n".join([head, *rows])
        + f"\n{warning}\nErrors are differences of logits from the Keras model's, on "
        f'{compared}, as many as the last column says; "same top-1" is the share whose likeliest '
        "class is the same. Milliseconds are medians of one call on the machine that exported, "
        f"worth comparing with each other only.{calibrated} `{REPORT_FILE}` has all of it.\n"
    )


def _use(trained, report):
    """A program for each family; TFLite files differ in their names only."""
    alike = {}
    for entry in report.entries.values():
        if entry.written:
            alike.setdefault((FORMATS[entry.format].family, entry.batch_size), []).append(entry)
    sections = []
    for first, *others in alike.values():
        same = ", ".join(f"`{entry.path}`" for entry in others)
        sections.append(
            f"`{first.path}`{f' (the same lines run {same})' if same else ''}:\n"
            f"```python\n{_snippet(first, trained)}```\n"
        )
    return (
        "## Use\nRun from this folder, with a picture `photo.jpg` in it; none of it needs "
        "`pit_keras`.\n\n" + "\n".join(sections)
    )


def _snippet(entry, trained):
    """A few lines of Python that print the likeliest class of photo.jpg."""
    if FORMATS[entry.format].family == "saved_model":
        return (
            "import tensorflow as tf\n\n"
            f'model = tf.saved_model.load("{entry.path}")\n'
            'photo = tf.io.read_file("photo.jpg")\n'
            'outputs = model.signatures["serve_bytes"](image_bytes=photo[None])\n'
            'print(outputs["top_classes"][0, 0].numpy().decode())\n'
        )
    height, width = trained.data.image_size
    bleed = (1 - trained.data.eval_crop) / 2
    if FORMATS[entry.format].family == "tflite":
        imports = "from ai_edge_litert.interpreter import Interpreter\n"
        batch = "[None]" if entry.batch_size == 1 else f"[None].repeat({entry.batch_size}, axis=0)"
        call = (
            f'classify = Interpreter("{entry.path}", num_threads=2).get_signature_runner()\n'
            f'logits = classify(images=np.asarray(crop){batch})["logits"]\n'
        )
    else:
        imports = "from onnxruntime import InferenceSession\n"
        call = (
            f'session = InferenceSession("{entry.path}")\n'
            '(logits,) = session.run(["logits"], {"images": np.asarray(crop)[None]})\n'
        )
    names = 'print(open("classes.txt", encoding="utf-8").read().splitlines()[logits[0].argmax()])\n'
    return PILLOW.format(imports=imports, width=width, height=height, bleed=bleed) + call + names


def _preprocessing(trained):
    data = trained.data
    height, width = data.image_size
    assumed = "" if trained.folder else " (assumed: there was no run folder to say so)"
    return (
        "## Preprocessing\n"
        "RGB, 8 bits, as the file stores it: an orientation given in EXIF is not applied. The "
        "image is resized (bicubic, antialiased), its aspect kept, and the model sees the middle "
        f"{height} x {width} pixels: {data.eval_crop:.1%} of the short side{assumed}. These are "
        f"normalised with mean {_numbers(data.mean)} and standard deviation "
        f"{_numbers(data.std)} of values in 0..1. The SavedModel does all of this; the other files "
        "take the crop as uint8 and normalise it.\n"
    )


def _data_and_recipe(trained, run):
    if run is None:
        return (
            "## Data and recipe\nNot known: the model was exported from a single file, not from a "
            "run folder.\n"
        )
    config = run.read_config()
    data, training = config.data, config.training
    start = config.model.weights or "random weights"
    distilled = config.distillation
    teacher = (
        f", with `{distilled.teacher}` as teacher ({distilled.kind} distillation)"
        if distilled.kind != "none"
        else ""
    )
    mixing = [
        name for name, on in (("MixUp", data.mixup_alpha), ("CutMix", data.cutmix_alpha)) if on
    ]
    augmentation = [
        "random resized crops",
        *(["horizontal flips"] if data.flip else []),
        *(["RandAugment"] if data.rand_augment else []),
        *(["random erasing"] if data.erasing else []),
        *mixing,
    ]
    return (
        "## Data and recipe\n"
        f"Data set: `{data.dataset}`. Recipe: `{config.recipe}`, {training.epochs} epochs of "
        f"batches of {training.images_of_update} from {start}{teacher}, seed {training.seed}; "
        f"AdamP, learning rate {config.optimizer.learning_rate:g} for a batch of 512. "
        f"Augmentation: {', '.join(augmentation)}. The run's `config.json` has every value.\n"
    )


def _results(run):
    if run is None or not run.results.exists():
        what = "The run has not ended" if run is not None else "Not known"
        return f"## Results\n{what}: the Keras model's accuracy is not in this card.\n"
    results = json.loads(run.results.read_text())
    return (
        "## Results\n"
        f"The Keras model on the {results['images']:,} images of the `{results['split']}` split of "
        f"`{results['dataset']}` (centre crop {results['eval_crop']:g}): top-1 "
        f"{results['top1']:.2%}, top-5 {results['top5']:.2%}. The files' accuracy was not measured "
        "by itself; the table above says how often they answer as the Keras model does.\n"
    )


def _limits(trained, report):
    counts = [entry.agreement.images for entry in report.entries.values() if entry.min_agreement]
    few = (
        f" They were compared on only {min(counts)} images, so shares are coarse."
        if counts and min(counts) < 100
        else ""
    )
    return (
        "## Limits\n"
        f"- It names one of its {len(trained.class_names):,} classes for every image, also for one "
        "that shows none of them. The probabilities are not calibrated.\n"
        "- It is as good as its data: on images of another kind (other cameras, light, framing) "
        "its accuracy is unknown until it is measured there.\n"
        f"- {_closeness(report)}{few}\n"
        "- Only the middle of a long image is seen.\n"
    )


def _closeness(report):
    written = [entry for entry in report.entries.values() if entry.written]
    exact = [f"`{entry.path}`" for entry in written if entry.min_agreement is None]
    rounded = [f"`{entry.path}`" for entry in written if entry.min_agreement is not None]
    sentences = []
    if exact:
        sentences.append(
            f"{', '.join(exact)}: within {TOLERANCE:.0e} of the Keras model's largest logit."
        )
    if rounded:
        sentences.append(
            f"{', '.join(rounded)}: rounded numbers, which decide differently now and then."
        )
    return " ".join(sentences)


def _licence(report):
    stated = report.license or (
        "Not stated by who exported it (`--license` says it). The software that made it, "
        "pit_keras, is under Apache-2.0; that says nothing of the weights, for which the data's "
        "terms may count"
    )
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return f"## Licence\n{stated.rstrip('.')}.\n\nMade with {versions}.\n"


def _numbers(values):
    return f"({', '.join(f'{value:g}' for value in values)})"
