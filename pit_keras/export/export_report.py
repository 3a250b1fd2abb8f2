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
    """One exported form.

    Attributes:
        format: Its name in `FORMATS`.
        path: The file or folder, relative to the export folder.
        bytes: Its size.
        sha256: Of the file, or of the names and contents in the folder.
        agreement: How its answers differ from the Keras model's, an `Agreement` or, of a detector,
            a `DetectionAgreement`.
        min_agreement: The share of equal answers that was asked for; None where the numbers must be
            within `TOLERANCE`.
        latency_ms: Median milliseconds of one call, by threads: "1", "2", or "all" for what
            TensorFlow uses by itself.
        batch_size: Images of one call when the latency was measured.
        compared_on: What the images were on which it was compared; `agreement` has their number.
        calibrated_on: What those were on which it was calibrated; None if it was not.
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
    """Everything about one export folder.

    Attributes:
        model: Its name, classes, parameters, image size and the sha256 of its weights.
        license: Of the weights; None if it is not said.
        versions: Of the packages that took part.
        entries: An `Entry` for each format, by its name.
        left_out: Why formats that would be written by default are not, by their names.
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
        """As JSON text; `from_json` is the inverse."""
        content = dataclasses.asdict(self)
        for name, entry in self.entries.items():
            content["entries"][name]["accepted"] = entry.accepted
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            content = json.loads(text)
            entries = {name: _entry(values) for name, values in content.pop("entries").items()}
            return cls(**content, entries=entries)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a report of an export: {error}") from error

    @property
    def columns(self):
        """Headings of the table."""
        (headings,) = {entry.agreement.HEADINGS for entry in self.entries.values()}
        return (*_COLUMNS, *headings)

    def rows(self):
        """The table: a row of texts for each form that is in the folder, under `columns`."""
        return [_row(entry) for entry in self.entries.values() if entry.written]


def describe_model(trained):
    """What a report says of a `TrainedModel` or `TrainedDetector`.

    It is equal for equal weights of an equal architecture.
    """
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
    """Versions of the packages that take part in an export, without those not installed."""
    installed = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}


def read_report(folder):
    """The report of an export folder, or None if it holds none.

    Raises:
        ValueError: If its `report.json` is something else.
    """
    path = pathlib.Path(folder, REPORT_FILE)
    if not path.exists():
        return None
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, or not of this version of pit-keras export ({error}); export to "
            "another folder with --output_dir, or everything anew with --overwrite."
        ) from error


def _entry(values):
    fields = {name: value for name, value in values.items() if name != "accepted"}
    if fields["format"] not in FORMATS:
        raise KeyError(fields["format"])
    agreement = fields["agreement"]
    kind = DetectionAgreement if "same_objects" in agreement else Agreement
    return Entry(**{**fields, "agreement": kind(**agreement)})


def explain(rejected):
    """What is wrong with entries that do not agree with the Keras model, in one sentence."""
    reasons = []
    for entry in rejected:
        if not entry.agreement.finite:
            reasons.append(f"{entry.format}: its numbers, or the Keras model's, are not finite")
            continue
        reasons.append(
            f"{entry.format} does not agree with the Keras model ({entry.agreement}, while "
            f"{entry.agreement.allowed(entry.min_agreement)})"
        )
    return "; ".join(reasons)


def _row(entry):
    latencies = (entry.latency_ms.get(threads) for threads in ("1", "2", "all"))
    batch = "" if entry.batch_size == 1 else f" (batch {entry.batch_size})"
    return (
        entry.path + batch,
        f"{entry.bytes / 1e6:.1f}",
        *("" if latency is None else f"{latency:.1f}" for latency in latencies),
        *entry.agreement.cells,
    )
