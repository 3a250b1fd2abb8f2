"""The model card: `README.md` of an export folder, made from the run and the export's report."""

import json
import re

import jinja2

from pit_keras.errors import visible
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


def model_card(trained, report):
    """The card of a `Report` as Markdown text; only a run folder knows data, recipe and results."""
    run = None if trained.folder is None else RunFolder(trained.folder)
    detector = isinstance(trained, TrainedDetector)
    height, width = tflite_size(trained) if detector else trained.data.image_size
    written = [entry for entry in report.entries.values() if entry.written]
    rounded = [entry for entry in written if entry.min_agreement is not None]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(code=_code, plain=_plain)
    return environment.get_template("model_card.md").render(
        mark=MARK,
        report=report,
        report_file=REPORT_FILE,
        names=trained.class_names,
        most=MOST_CLASSES,
        data=trained.data,
        config=run and run.read_config(),
        results=json.loads(run.results.read_text()) if run and run.results.exists() else None,
        detector=detector,
        height=height,
        width=width,
        fixed=detector and trained.fixed_size,
        queries=trained.model.output["logits"].shape[1] if detector else None,
        written=written,
        forced=[entry for entry in written if not entry.accepted],
        exact=[entry for entry in written if entry.min_agreement is None],
        rounded=rounded,
        fewest=min((entry.agreement.images for entry in rounded), default=0),
        alike=_alike(written),
        formats=FORMATS,
        tolerance=TOLERANCE,
        threshold=THRESHOLD,
        same_score=SAME_SCORE,
        same_box=SAME_BOX,
    )


def _code(text):
    """Markdown that shows text as it is, between more backticks than it has in a row."""
    text = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{space}{text}{space}{fence}"


def _plain(text):
    """Markdown that shows text as it is, within a sentence."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", visible(text))


def _alike(entries):
    """The entries in lists that one program runs; TFLite files differ only in their names."""
    alike = {}
    for entry in entries:
        alike.setdefault((FORMATS[entry.format].family, entry.batch_size), []).append(entry)
    return list(alike.values())
