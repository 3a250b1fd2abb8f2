"""What an export wrote and how closely each file agrees with the Keras model: `report.json`."""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib

from pit_keras.export.agreement import Agreement, DetectionAgreement
from pit_keras.export.formats import FORMATS, TOLERANCE
from pit_keras.models.cost import count_parameters

REPORT_FILE = "report.json"
PACKAGES = ("pit_keras", "keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer", "tf2onnx")
_COLUMNS = ("file", "MB", "ms, 1 thread", "2 threads", "all")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One exported form: a file or folder at `path` in the export folder.

    Attributes:
        min_agreement: The least share of equal answers; None if the numbers must be within
            `TOLERANCE`.
        latency_ms: Median milliseconds of one call with `batch_size` images, by threads: "1", "2",
            or "all" for TensorFlow's own choice.
        compared_on, calibrated_on: What the images were; None if it was not calibrated.
        written: Whether it is in the folder. What does not agree is written only if forced.
    """

    format: str
    path: str
    bytes: int
    sha256: str
    agreement: Agreement | DetectionAgreement
    min_agreement: float | None
    latency_ms: dict
    batch_size: int
    compared_on: str
    calibrated_on: str | None
    written: bool

    @property
    def accepted(self):
        """Whether it agrees with the Keras model as closely as it should."""
        if self.min_agreement is None:
            return self.agreement.within(TOLERANCE)
        return self.agreement.finite and self.agreement.share >= self.min_agreement


@dataclasses.dataclass(frozen=True)
class Report:
    """An export folder: an `Entry` by format, and why other default formats are left out.

    `model` is that of `describe_model`, `license` the weights' or None.
    """

    model: dict
    license: str | None
    versions: dict
    entries: dict
    left_out: dict

    @property
    def rejected(self):
        """The entries that are not as close to the Keras model as they should be."""
        return [entry for entry in self.entries.values() if not entry.accepted]

    def to_json(self):
        content = dataclasses.asdict(self)
        for name, entry in self.entries.items():
            content["entries"][name]["accepted"] = entry.accepted
        return json.dumps(content, indent=2) + "\n"

    @property
    def columns(self):
        (headings,) = {entry.agreement.HEADINGS for entry in self.entries.values()}
        return (*_COLUMNS, *headings)

    def rows(self):
        """A row of texts under `columns` for each form that is in the folder."""
        return [_row(entry) for entry in self.entries.values() if entry.written]


def describe_model(trained):
    """What a report says of a model: equal for equal weights of an equal architecture."""
    model = trained.model
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{weight.path}{weight.shape}".encode())
        digest.update(weight.numpy().tobytes())
    return {
        "name": model.name,
        "parameters": count_parameters(model),
        "classes": len(trained.class_names),
        "image_size": list(trained.data.image_size),
        "weights_sha256": digest.hexdigest(),
    }


def installed_versions():
    installed = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}


def read_report(folder):
    """The report of an export folder, or None; a ValueError if its file is something else."""
    path = pathlib.Path(folder, REPORT_FILE)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {name: _entry(values) for name, values in content.pop("entries").items()}
        return Report(**content, entries=entries)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged, or of another version of pit-keras ({error}); choose another "
            "folder with --output_dir, or export everything anew with --overwrite."
        ) from error


def _entry(values):
    del values["accepted"]
    FORMATS[values["format"]]  # a KeyError for one that is not known
    agreement = values.pop("agreement")
    kind = DetectionAgreement if "same_objects" in agreement else Agreement
    return Entry(**values, agreement=kind(**agreement))


def explain(rejected):
    """Why entries are rejected, in one sentence."""
    return "; ".join(
        f"{each.format} does not agree with the Keras model "
        f"({each.agreement.shortfall(each.min_agreement)})"
        for each in rejected
    )


def _row(entry):
    latencies = (entry.latency_ms.get(threads) for threads in ("1", "2", "all"))
    batch = "" if entry.batch_size == 1 else f" (batch {entry.batch_size})"
    return (
        entry.path + batch,
        f"{entry.bytes / 1e6:.1f}",
        *("" if latency is None else f"{latency:.1f}" for latency in latencies),
        *entry.agreement.cells,
    )
