"""An evaluation as one web page: where a model is right, what it confuses, its worst mistakes.

The page holds everything itself, pictures included, so it can be sent, kept and opened offline.
"""

import base64
import dataclasses
import importlib.resources
import io
import pathlib
import warnings

import jinja2
import numpy as np
import tensorflow as tf
from PIL import Image

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.errors import check_can_write
from pit_keras.evaluation.predictions import CALIBRATION_BINS
from pit_keras.plots.pictures import draw_calibration, draw_history
from pit_keras.runs.run_folder import RunFolder, explained, write_atomically

PAGE = "index.html"
MOST_MISTAKES = 24
MOST_PAIRS = 20
MOST_CLASSES_OF_MATRIX = 40  # beyond them the pairs say more than a wall of cells
MOST_PIXELS = 256  # of a picture's side in the gallery


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A picture that was taken for something else.

    Attributes:
        picture: What the model saw of it, as a data URI.
        name: The file, relative to its data set, or the record.
        label, predicted: Names of the true and of the predicted class.
        own_probability, probability: What the model gave to each of them.
        loss: Cross-entropy.
    """

    picture: str
    name: str
    label: str
    predicted: str
    own_probability: float
    probability: float
    loss: float


def check_report_folder(folder):
    """Checks, before long work, that a report can be written into a folder; leaves no trace.

    Args:
        folder: An existing folder, whose earlier report will be replaced, or one to be made.

    Raises:
        OSError: If it cannot; the sentence says why.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--report={folder} is a file; give a folder.")
    check_can_write(folder / PAGE if folder.is_dir() else folder, "--report")


def write_report(folder, trained, source, results, predictions):
    """Writes `index.html` into a folder, in place of an earlier one.

    Args:
        folder: Made if need be.
        trained: The `TrainedModel`; with its run folder the page has the training curves too.
        source: The data set that it was evaluated on. Of its images only those of the worst
            mistakes are loaded.
        results: Those of the evaluation.
        predictions: The `Predictions` of the same evaluation, see `evaluate_each`.

    Returns:
        The path of the page.

    Raises:
        OSError: If it cannot be written; an earlier page stays as it was.
    """
    text = report_page(trained, source, results, predictions)
    page = pathlib.Path(folder) / PAGE
    with explained(page):
        page.parent.mkdir(exist_ok=True)
    write_atomically(page, text)
    return page


def report_page(trained, source, results, predictions):
    """The page as HTML text; see `write_report`."""
    template = importlib.resources.files(__package__).joinpath("html_report.html")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    names, calibration = trained.class_names, predictions.calibration()
    text = environment.from_string(template.read_text(encoding="utf-8")).render(
        model=trained.model.name,
        facts=_facts(trained, results),
        results=results,
        wrong=int(predictions.is_wrong.sum()),
        classes=_classes(names, predictions),
        names=names,
        matrix=_matrix(predictions),
        pairs=[
            (names[label], names[predicted], images)
            for label, predicted, images in predictions.confused_pairs(MOST_PAIRS)
        ],
        mistakes=worst_mistakes(trained, source, results["eval_crop"], predictions),
        calibration_error=calibration.error,
        calibration_bins=CALIBRATION_BINS,
        calibration=_drawn(draw_calibration, calibration),
        curves=_curves(trained.folder),
    )
    # Names of files and classes may be no text; a page must be.
    return text.encode(errors="backslashreplace").decode()


def worst_mistakes(trained, source, eval_crop, predictions, count=MOST_MISTAKES):
    """The mistakes of the highest loss, the worst first, as a list of `Mistake`.

    Args:
        trained: The `TrainedModel`.
        source: The data set of the predictions.
        eval_crop: The crop that the model saw in evaluation.
        predictions: `Predictions` over parts of `source`.
        count: How many at most.
    """
    worst = predictions.worst(count)
    data = dataclasses.replace(trained.data, eval_crop=eval_crop)
    wanted = {
        split: predictions.position[worst][predictions.split[worst] == split].tolist()
        for split in ("train", "val")
    }
    examples = {
        (split, position): example
        for split, positions in wanted.items()
        for position, example in _load(source, split, positions, data).items()
    }
    mistakes = []
    for index in worst:
        crop, name = examples[predictions.split[index], predictions.position[index]]
        mistakes.append(
            Mistake(
                picture=_jpeg(crop),
                name=name,
                label=trained.class_names[predictions.label[index]],
                predicted=trained.class_names[predictions.predicted[index]],
                own_probability=float(np.exp(-predictions.loss[index])),
                probability=float(predictions.probability[index]),
                loss=float(predictions.loss[index]),
            )
        )
    return mistakes


def _load(source, split, positions, data):
    """What the model saw at some places of a split's scan: {position: (uint8 (H, W, 3), name)}.

    The split is passed over once, and only these images are decoded.
    """
    if not positions:
        return {}
    wanted = tf.constant(positions, tf.int64)
    folder = source.name.removeprefix("folder:") + "/"
    examples = (
        source.scan(split)
        .enumerate()
        .filter(lambda position, _: tf.reduce_any(position == wanted))
        .take(len(positions))
    )
    found = {}
    for position, example in examples:
        crop = resize_and_crop(source.load(example["image"]), data.image_size, data.eval_crop)
        name = source.describe(split, int(example["id"])).removeprefix(folder)
        found[int(position)] = tf.cast(crop, tf.uint8).numpy(), name
    return found


def _facts(trained, results):
    """What was evaluated and how: (term, text)."""
    height, width = trained.data.image_size
    facts = [
        ("Data set", f"{results['dataset']}, {results['split']}"),
        ("Evaluation crop", f"{results['eval_crop']:g}"),
        ("Input", f"{height} x {width} pixels"),
        ("Parameters", f"{trained.model.count_params():,}"),
    ]
    if trained.folder is None:
        return facts
    config = RunFolder(trained.folder).read_config()
    trained_as = f"{config.recipe}, {config.training.epochs} epochs of {config.data.dataset}"
    return [*facts, ("Run", str(trained.folder)), ("Recipe", trained_as)]


def _classes(names, predictions):
    """Rows of the table of classes: the lowest recall first, those without images last."""
    measures = predictions.per_class()
    order = np.argsort(measures["recall"], kind="stable")
    return [
        {"name": names[index], **{name: values[index].item() for name, values in measures.items()}}
        for index in order
    ]


def _matrix(predictions):
    """Rows of (images, share of the row), or None for too many classes."""
    if predictions.classes > MOST_CLASSES_OF_MATRIX:
        return None
    counts = predictions.confusion()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        list(zip(*rows, strict=True)) for rows in zip(counts.tolist(), shares.tolist(), strict=True)
    ]


def _curves(folder):
    """A run's training curves as a data URI; None where there are none to be read."""
    history = None if folder is None else RunFolder(folder).history
    if history is None or not history.exists():
        return None
    try:
        return _drawn(draw_history, history)
    except ValueError as error:
        reason = str(error).rstrip(".")
        warnings.warn(f"The report has no training curves: {history}: {reason}.", stacklevel=2)
        return None


def _drawn(draw, content):
    file = io.BytesIO()
    draw(content, file)
    return _data_uri("image/png", file)


def _jpeg(pixels):
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    picture.save(file, "JPEG", quality=92, subsampling=0)
    return _data_uri("image/jpeg", file)


def _data_uri(kind, file):
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
