"""Exporting: write, compare with the Keras model on real images, and only then move in place."""

import dataclasses
import functools
import pathlib
from typing import NamedTuple

import keras

from pit_keras.export.export_folder import (
    TEXTS,
    check_targets,
    digest_of,
    exclusive_folder,
    explained,
    put_in_place,
    size_of,
)
from pit_keras.export.export_report import (
    REPORT_FILE,
    Entry,
    Report,
    describe_model,
    explain,
    installed_versions,
    read_report,
)
from pit_keras.export.families import Job, families, full_float32, in_float32, why_not
from pit_keras.export.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    check_formats,
    checked_limits,
)
from pit_keras.export.model_card import model_card
from pit_keras.export.sidecars import class_names_text

REMEDY = "--force writes it all the same, --min_agreement changes a limit"


class ExportError(ValueError):
    """An export of which nothing agrees with the Keras model as closely as it should."""


class _Plan(NamedTuple):
    """What one export is to do: names in `FORMATS`, least agreements, reasons, what stays."""

    names: tuple[str, ...]
    by_name: bool
    limits: dict
    left_out: dict
    earlier: dict
    earlier_license: str | None


def export(
    trained,
    output_dir,
    formats=None,
    *,
    compare_on,
    calibrate_on=None,
    min_agreement=None,
    force=False,
    batch_size=1,
    license=None,
    overwrite=False,
    announce=lambda words: None,
):
    """Writes a trained model in other forms, after comparing each with the Keras model.

    All are written to a temporary folder, compared and timed there. Those that agree are moved in
    place, together with `report.json`, `README.md` (the model card) and `classes.txt`. A form that
    does not agree is left out, and the report says so. A form that the folder holds already, of the
    same weights, stays and stays in the report.

    Args:
        trained: A `TrainedModel` or `TrainedDetector`. Whatever its precision, it is exported in
            float32.
        output_dir: The folder to write to; made if it is missing.
        formats: Names in `FORMATS`; None for those written by default that can be written here.
        compare_on: A `Sample` of images.
        calibrate_on: A `Sample` of at least `LEAST_CALIBRATION_IMAGES` others, for int8.
        min_agreement: `{format: share}` where another agreement is asked for than `FORMATS` has.
        force: Whether to write what does not agree all the same.
        batch_size: Images of one call of a TFLite file.
        license: Of the weights, as a text; None for that of an earlier export of them, if any.
        overwrite: Whether to replace what is there.
        announce: Called with a few words before each piece of work.

    Returns:
        The `Report`. Its `rejected` are not in the folder, unless forced.

    Raises:
        ExportError: If nothing agrees with the Keras model; the folder is as it was.
        ValueError: If an argument is wrong, a format cannot be written here, or Keras does not run
            on TensorFlow.
        FileExistsError: If a target exists and is not to be overwritten.
        OSError: If `output_dir` cannot be written to, or there is no space left.
    """
    output_dir = pathlib.Path(output_dir)
    _check_backend()
    job = Job(in_float32(trained), calibrate_on, batch_size, license)
    description = describe_model(job.trained)
    arguments = job, output_dir, formats, min_agreement or {}, overwrite, description
    _plan(*arguments)
    with exclusive_folder(output_dir) as folder:
        plan = _plan(*arguments)  # once more: another export may have come in between
        entries, left_out = _write_and_compare(job, folder, plan, compare_on, force, announce)
        report = Report(
            model=description,
            license=license or plan.earlier_license,
            versions=installed_versions(),
            entries=_with_earlier(entries, plan.earlier),
            left_out=left_out,
        )
        _write_texts(trained, report, folder)
        written = [entry.path for entry in entries.values() if entry.written]
        put_in_place(folder, output_dir, written, _removed(entries, plan.earlier))
    return report


def _check_backend():
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            f"Exporting needs Keras' TensorFlow backend, not {backend}; set "
            "KERAS_BACKEND=tensorflow."
        )


def _plan(job, output_dir, formats, min_agreement, overwrite, description):
    """Checks everything that can be checked before the work; leaves no trace."""
    reasons = {name: why_not(format_, job) for name, format_ in FORMATS.items()}
    if formats is None:
        names = tuple(name for name in DEFAULT_FORMATS if reasons[name] is None)
        left_out = {name: reasons[name] for name in DEFAULT_FORMATS if name not in names}
    else:
        names, left_out = tuple(dict.fromkeys(formats)), {}
        check_formats(names)
        for name in names:
            if reasons[name] is not None:
                raise ValueError(f"{name} cannot be written: {reasons[name]}.")
    limits = checked_limits(min_agreement, names)
    if job.batch_size != 1 and not any(FORMATS[name].family == "tflite" for name in names):
        raise ValueError(
            f"A batch size of {job.batch_size} is of TFLite files, of which none is to be "
            "exported; the other forms take any number of images."
        )
    check_targets(output_dir, names, overwrite)
    earlier, earlier_license = _earlier(output_dir, names, description, overwrite)
    return _Plan(names, formats is not None, limits, left_out, earlier, earlier_license)


def _earlier(output_dir, names, description, overwrite):
    """Entries of an earlier export of the same weights whose files are there, and its licence."""
    try:
        report = read_report(output_dir)
    except ValueError:
        if not overwrite:
            raise
        report = None
    if report is None:
        return {}, None
    there = {
        name: entry
        for name, entry in report.entries.items()
        if entry.written
        and (output_dir / entry.path).exists()
        and digest_of(output_dir / entry.path) == entry.sha256
    }
    if report.model == description:
        return there, report.license
    others = [entry.path for name, entry in there.items() if name not in names]
    if others:
        raise ValueError(
            f"{output_dir} holds {', '.join(others)} of another model; export these anew too, or "
            "choose another folder with --output_dir."
        )
    return {}, None


def _write_and_compare(job, folder, plan, compare_on, force, announce):
    """Writes the formats into a folder.

    Returns:
        Each one's `Entry`, and why those are left out that cannot be made of this model.

    Raises:
        ExportError: If none is to stay, or one cannot be made that was asked for by name.
    """
    expected = functools.cache(lambda answers_of: answers_of(job.trained, compare_on))
    entries, left_out = {}, dict(plan.left_out)
    for name in plan.names:
        try:
            entry = _write_and_measure(name, job, folder, plan, compare_on, expected, announce)
        except OSError:
            raise
        except Exception as error:  # converters and runtimes have no class of errors in common
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            left_out[name] = (
                f"it cannot be made of {job.trained.model.name} or not be run: {reason}"
            )
            if plan.by_name:
                raise ExportError(f"Nothing was written; {name}: {left_out[name]}") from error
        else:
            entries[name] = dataclasses.replace(entry, written=entry.accepted or force)
    if not any(entry.written for entry in entries.values()):
        reasons = [f"{explain(entries.values())}; {REMEDY}"] if entries else []
        reasons += [f"{name}: {reason}" for name, reason in left_out.items()]
        raise ExportError(f"Nothing was written: {'; '.join(reasons)}.")
    return entries, left_out


def _write_and_measure(name, job, folder, plan, compare_on, expected, announce):
    format_ = FORMATS[name]
    path = folder / format_.target
    announce(f"Writing {format_.target}")
    with explained(format_.target):
        families(job.trained)[format_.family].write(job, format_.kind, path)
    announce(f"Comparing {format_.target} with the Keras model")
    with full_float32():
        return _measured(name, job, path, plan.limits[name], compare_on, expected)


def _measured(name, job, path, min_agreement, compare_on, expected):
    """The `Entry` of a file or folder that was written."""
    format_ = FORMATS[name]
    family = families(job.trained)[format_.family]
    agreement = family.compare(expected(family.expected), family.answers(path, compare_on))
    calibrated_on = job.calibration if format_.kind == "int8" else None
    return Entry(
        format=name,
        path=format_.target,
        bytes=size_of(path),
        sha256=digest_of(path),
        agreement=agreement,
        min_agreement=min_agreement,
        latency_ms=family.latency(path, compare_on.crops[0]),
        batch_size=job.batch_size if format_.family == "tflite" else 1,
        compared_on=compare_on.origin,
        calibrated_on=(f"{len(calibrated_on):,} {calibrated_on.origin}" if calibrated_on else None),
        written=True,
    )


def _with_earlier(entries, earlier):
    """The entries of this export, and of an earlier one those whose files stay."""
    written = {name: entry for name, entry in entries.items() if entry.written}
    together = {**entries, **earlier, **written}
    return {name: together[name] for name in FORMATS if name in together}


def _write_texts(trained, report, folder):
    """The report, the model card and the class names."""
    texts = (model_card(trained, report), class_names_text(trained.class_names), report.to_json())
    with explained(REPORT_FILE):
        for name, text in zip(TEXTS, texts, strict=True):
            (folder / name).write_bytes(text.encode())


def _removed(entries, earlier):
    """Paths of rejected forms: what lies there is of another model, unless it stays."""
    return [
        entry.path for name, entry in entries.items() if not entry.written and name not in earlier
    ]
