"""A checked folder as one web page and a CSV file."""

import io
import os
import pathlib

import numpy as np
from PIL import Image

from pit_keras.data.image_facts import open_reduced
from pit_keras.errors import visible
from pit_keras.evaluation.folder_check import KINDS
from pit_keras.evaluation.web_pages import data_uri, render_page
from pit_keras.runs.run_folder import explained, write_atomically

PAGE, TABLE = "check.html", "check.csv"
MOST_SHOWN = 24  # findings of a kind
MOST_PIXELS = 160  # of a picture's side


def write_check(check, folder):
    """Writes `check.html` and `check.csv` of a `FolderCheck` into a folder, which may be new.

    Returns the path of the page.
    """
    page = pathlib.Path(folder) / PAGE
    text = check_page(check)
    with explained(page):
        page.parent.mkdir(exist_ok=True)
    write_atomically(page.with_name(TABLE), check.csv())
    write_atomically(page, text)
    return page


def check_page(check):
    """The page as HTML text; see `write_check`."""
    train, val = check.images["train"], check.images["val"]
    most = max(map(sum, zip(train, val, strict=True)))
    classes = [
        {"name": visible(name), "train": of_train, "val": of_val}
        for name, of_train, of_val in zip(check.class_names, train, val, strict=True)
    ]
    sections = [
        {
            "kind": kind,
            **KINDS[kind]._asdict(),
            "count": len(findings),
            "shown": [_shown(check.folder, each) for each in findings[:MOST_SHOWN]],
        }
        for kind, findings in check.by_kind().items()
    ]
    return render_page(
        "folder_page.html",
        folder=visible(check.folder),
        images=sum(train) + sum(val),
        counts={name: check.count(name) for name in ("error", "warning", "remark")},
        facts=_facts(check),
        sections=sections,
        classes=classes,
        most=most,
        table=TABLE,
    )


def _facts(check):
    facts = [
        ("For training", f"{sum(check.images['train']):,}"),
        ("For validation", f"{sum(check.images['val']):,}"),
    ]
    if len(check.sizes):
        shortest = check.sizes.min(1)
        sides = f"{shortest.min():,.0f}, {np.median(shortest):,.0f}, {shortest.max():,.0f}"
        facts.append(("Short side: least, median, most", f"{sides} pixels"))
    return [*facts, ("Labels are judged by", visible(check.judged_by()))]


def _shown(folder, finding):
    files = [file for file in (finding.file, finding.other_file) if file]
    return {
        "files": [(visible(file), _picture(os.path.join(folder, file))) for file in files],
        "class_name": visible(finding.class_name),
        "detail": visible(finding.detail),
    }


def _picture(path):
    """A file's picture, small, as a data URI; None of one that cannot be read."""
    pixels = open_reduced(path, MOST_PIXELS)
    if pixels is None:
        return None
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    picture.save(file, "JPEG", quality=88)
    return data_uri("image/jpeg", file)
