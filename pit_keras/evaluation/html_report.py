"""An evaluation as one web page: accuracy, confusions, worst mistakes, calibration."""

import dataclasses
import io
import pathlib
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image

from pit_keras.data.preprocessing import resize_and_crop
from pit_keras.evaluation.predictions import CALIBRATION_BINS
from pit_keras.evaluation.web_pages import check_page_folder, data_uri, render_page
from pit_keras.plots.pictures import draw_calibration, draw_history
from pit_keras.runs.comparison import kept_epoch
from pit_keras.runs.run_folder import RunFolder, explained, write_atomically

PAGE = "index.html"
MOST_MISTAKES = 24
MOST_PAIRS = 20
MOST_CLASSES_OF_MATRIX = 40
MOST_PIXELS = 256  # of a picture's side in the gallery


def check_report_folder(folder):
    """Checks, before long work, that `index.html` can be written into a folder."""
    check_page_folder(folder, [PAGE], "--report")


def write_report(folder, trained, source, results, predictions):
    """Writes `index.html` on what `evaluate_each` returns into a folder, which is made if need be.

    The page of a run folder's model shows its training curves too. Returns the path of the page.
    """
    text = report_page(trained, source, results, predictions)
    page = pathlib.Path(folder) / PAGE
    with explained(page):
        page.parent.mkdir(exist_ok=True)
    write_atomically(page, text)
    return page


def report_page(trained, source, results, predictions):
    """The page as HTML text; see `write_report`."""
    names, calibration = trained.class_names, predictions.calibration()
    has_matrix = len(names) <= MOST_CLASSES_OF_MATRIX
    return render_page(
        "html_report.html",
        model=trained.model.name,
        facts=_facts(trained, results),
        results=results,
        wrong=int(predictions.is_wrong.sum()),
        classes=_classes(names, predictions),
        names=names,
        matrix=predictions.confusion().tolist() if has_matrix else None,
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


def worst_mistakes(trained, source, eval_crop, predictions, count=MOST_MISTAKES):
    """At most `count` mistakes, those with the highest loss first, as the page shows them."""
    names, data = trained.class_names, dataclasses.replace(trained.data, eval_crop=eval_crop)
    worst = predictions.worst(count)
    splits, positions = predictions.split[worst], predictions.position[worst]
    examples = {
        (split, position): example
        for split in ("train", "val")
        for position, example in _load(source, split, positions[splits == split].tolist(), data)
    }
    return [
        {
            **examples[split, position],
            "label": names[predictions.label[index]],
            "predicted": names[predictions.predicted[index]],
            "own_probability": float(np.exp(-predictions.loss[index])),  # of the true class
            "probability": float(predictions.probability[index]),
            "loss": float(predictions.loss[index]),
        }
        for index, split, position in zip(worst, splits, positions.tolist(), strict=True)
    ]


def _load(source, split, positions, data):
    """What the model saw at some positions of a split's scan: (position, {"picture", "name"}).

    Passes over the split once, and decodes only these images. A picture is a data URI, a name the
    file's below its data set, or the record's.
    """
    if not positions:
        return
    source = source.oriented(data.apply_orientation)
    wanted = tf.constant(positions, tf.int64)
    examples = source.scan(split).enumerate()
    examples = examples.filter(lambda position, _: tf.reduce_any(position == wanted))
    for position, example in examples.take(len(positions)):
        crop = resize_and_crop(source.load(example["image"]), data.image_size, data.eval_crop)
        picture, file = Image.fromarray(tf.cast(crop, tf.uint8).numpy()), io.BytesIO()
        picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
        picture.save(file, "JPEG", quality=92, subsampling=0)
        name = source.describe(split, int(example["id"]))
        name = name.removeprefix(source.name.removeprefix("folder:") + "/")
        yield int(position), {"picture": data_uri("image/jpeg", file), "name": name}


def _facts(trained, results):
    height, width = trained.data.image_size
    facts = [
        ("Data set", f"{results['dataset']}, {results['split']}"),
        ("Evaluation crop", f"{results['eval_crop']:g}"),
        ("Input", f"{height} x {width} pixels"),
        ("Parameters", f"{trained.model.count_params():,}"),
    ]
    if trained.folder is not None:
        config = RunFolder(trained.folder).read_config()
        recipe = f"{config.recipe}, {config.training.epochs} epochs of {config.data.dataset}"
        facts += [("Run", str(trained.folder)), ("Recipe", recipe)]
    return facts


def _classes(names, predictions):
    """Rows of the table of classes: the lowest recall first, those without images last."""
    measures = predictions.per_class()
    return [
        {"name": names[index], **{name: values[index].item() for name, values in measures.items()}}
        for index in np.argsort(measures["recall"], kind="stable")
    ]


def _curves(folder):
    """A run's training curves as a data URI; None where there are none."""
    history = None if folder is None else RunFolder(folder).history
    if history is None or not history.exists():
        return None
    try:
        return _drawn(draw_history, history, kept=kept_epoch(RunFolder(folder)))
    except ValueError as error:
        reason = str(error).rstrip(".")
        warnings.warn(f"The report has no training curves: {history}: {reason}.", stacklevel=2)
        return None


def _drawn(draw, content, **options):
    file = io.BytesIO()
    draw(content, file, **options)
    return data_uri("image/png", file)
