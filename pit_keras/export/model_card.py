"""The model card: `README.md` of an export folder, made from the run and the export's report."""

import json

from pit_keras.export import classifier_card, detector_card
from pit_keras.export.formats import FORMATS, TOLERANCE
from pit_keras.export.report import REPORT_FILE
from pit_keras.runs.folder import RunFolder
from pit_keras.runs.trained_detector import TrainedDetector

CARD_FILE = "README.md"
MARK = "<!-- Written by pit-keras export; made anew by each. -->"
MOST_CLASSES = 20  # named one by one


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
    texts = detector_card if isinstance(trained, TrainedDetector) else classifier_card
    parts = [
        MARK,
        _title(trained, report, run, texts),
        _files(report, texts),
        _use(trained, report, texts),
        f"## Preprocessing\n{texts.preprocessing(trained)}",
        _data_and_recipe(run, texts),
        _results(run, texts),
        _limits(trained, report, texts),
        _licence(report),
    ]
    return "\n".join(parts)


def _title(trained, report, run, texts):
    model, names = report.model, trained.class_names
    shown = ", ".join(f"`{name}`" for name in names[:MOST_CLASSES])
    rest = "" if len(names) <= MOST_CLASSES else f" and {len(names) - MOST_CLASSES:,} more"
    trained_on = "" if run is None else f", trained on `{run.read_config().data.dataset}`"
    return (
        f"# {model['name']}{trained_on}\n"
        f"{texts.KIND} of {model['parameters']:,} parameters. {texts.ability(trained)}: "
        f"{shown}{rest}. "
        "All of them, in the order of the outputs, are in `classes.txt`.\n"
    )


def _files(report, texts):
    head = f"| {' | '.join(report.columns)} |\n|---|{'--:|' * (len(report.columns) - 1)}"
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
        + f"\n{warning}\nErrors are {texts.ERRORS}, on {compared}, as many as the last column "
        f"says; {texts.SAME}. Milliseconds are medians of one call on the machine that exported, "
        f"worth comparing with each other only.{calibrated} `{REPORT_FILE}` has all of it.\n"
    )


def _use(trained, report, texts):
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
            f"```python\n{texts.snippet(first, trained)}```\n"
        )
    return (
        "## Use\nRun from this folder, with a picture `photo.jpg` in it; none of it needs "
        "`pit_keras`.\n\n" + "\n".join(sections)
    )


def _data_and_recipe(run, texts):
    if run is None:
        return (
            "## Data and recipe\nNot known: the model was exported from a single file, not from a "
            "run folder.\n"
        )
    config = run.read_config()
    data, training = config.data, config.training
    start = config.model.weights or "random weights"
    return (
        "## Data and recipe\n"
        f"Data set: `{data.dataset}`. Recipe: `{config.recipe}`, {training.epochs} epochs of "
        f"batches of {training.images_of_update} from {start}{texts.teacher(config)}, seed "
        f"{training.seed}; {texts.optimizer(config)}. "
        f"Augmentation: {', '.join(texts.augmentation(config))}. The run's `config.json` has every "
        "value.\n"
    )


def _results(run, texts):
    if run is None or not run.results.exists():
        what = "The run has not ended" if run is not None else "Not known"
        return f"## Results\n{what}: the Keras model's accuracy is not in this card.\n"
    return f"## Results\n{texts.results(json.loads(run.results.read_text()))}"


def _limits(trained, report, texts):
    first, last = texts.habits(trained)
    counts = [entry.agreement.images for entry in report.entries.values() if entry.min_agreement]
    few = (
        f" They were compared on only {min(counts)} images, so shares are coarse."
        if counts and min(counts) < 100
        else ""
    )
    return (
        "## Limits\n"
        f"- {first}\n"
        "- It is as good as its data: on images of another kind (other cameras, light, framing) "
        "its accuracy is unknown until it is measured there.\n"
        f"- {_closeness(report, texts)}{few}\n"
        f"- {last}\n"
    )


def _closeness(report, texts):
    written = [entry for entry in report.entries.values() if entry.written]
    exact = [f"`{entry.path}`" for entry in written if entry.min_agreement is None]
    rounded = [f"`{entry.path}`" for entry in written if entry.min_agreement is not None]
    sentences = []
    if exact:
        sentences.append(f"{', '.join(exact)}: within {TOLERANCE:.0e} {texts.EXACT}.")
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
