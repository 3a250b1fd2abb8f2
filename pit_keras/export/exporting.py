"""Exporting: write, compare with the Keras model on real images, and only then move in place."""

import dataclasses
import functools
import pathlib

from pit_keras.errors import require_tensorflow
from pit_keras.export import export_folder
from pit_keras.export.agreement import median_milliseconds
from pit_keras.export.export_report import (
    Entry,
    Report,
    describe_model,
    explain,
    installed_versions,
    read_report,
)
from pit_keras.export.families import Job, families, full_float32, in_float32, why_not
from pit_keras.export.formats import DEFAULT_FORMATS, FORMATS, checked_limits
from pit_keras.export.model_card import model_card
from pit_keras.export.sidecars import class_names_text
from pit_keras.waits import waiting

REMEDY = "--force writes it all the same, --min_agreement changes a limit"


class ExportError(ValueError):
    """No exported form agrees with the Keras model as closely as it should."""


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
):
    """Writes a trained model in other forms, after comparing each with the Keras model.

    All are written to a temporary folder, compared and timed there. Those that agree are moved in
    place, together with `report.json`, `README.md` (the model card) and `classes.txt`; the others
    are left out. Other forms of the same weights stay in the folder and in the report.

    Args:
        trained: A `TrainedModel` or `TrainedDetector`, exported in float32 whatever its precision.
        formats: Names in `FORMATS`; None for the default ones that can be written here.
        compare_on: A `Sample` of images.
        calibrate_on: A `Sample` of at least `LEAST_CALIBRATION_IMAGES` others, for int8.
        min_agreement: `{format: share}`, overrides `FORMATS`.
        batch_size: Images of one call of a TFLite file.
        license: The weights' licence, as a text; None for that of an earlier export.

    Returns:
        The `Report`. Its `rejected` are not in the folder, unless forced.

    Raises:
        ExportError: If nothing agrees with the Keras model; the folder is as it was.
    """
    output_dir = pathlib.Path(output_dir)
    require_tensorflow("Exporting")
    job = Job(in_float32(trained), calibrate_on, batch_size, license)
    limits, left_out = _chosen(formats, min_agreement or {}, job)
    description = describe_model(job.trained)
    with export_folder.exclusive_folder(output_dir) as folder:
        export_folder.check_targets(output_dir, limits, overwrite)
        earlier, earlier_license = _earlier(output_dir, limits, description, overwrite)
        entries = _write_and_compare(job, folder, limits, compare_on, left_out)
        for name, entry in entries.items():
            entries[name] = dataclasses.replace(entry, written=entry.accepted or force)
        written = {name: entry for name, entry in entries.items() if entry.written}
        if not written:
            reasons = [f"{explain(entries.values())}; {REMEDY}"] if entries else []
            reasons += [f"{name}: {reason}" for name, reason in left_out.items()]
            raise ExportError(f"Nothing was written: {'; '.join(reasons)}.")
        together = {**entries, **earlier, **written}
        report = Report(
            model=description,
            license=license or earlier_license,
            versions=installed_versions(),
            entries={name: together[name] for name in FORMATS if name in together},
            left_out=left_out,
        )
        _write_texts(trained, report, folder)
        # What lies in the place of a form that is not written is another model's, unless it stays.
        removed = [FORMATS[name].target for name in limits if name not in written | earlier]
        paths = [entry.path for entry in written.values()]
        export_folder.put_in_place(folder, output_dir, paths, removed)
    return report


def _chosen(formats, min_agreement, job):
    """The formats to write, each with its limit, and why default ones are left out."""
    limits = checked_limits(min_agreement, formats or DEFAULT_FORMATS)
    reasons = {name: why_not(name, job) for name in limits}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    for name in left_out:
        del limits[name]
        if formats:
            raise ValueError(f"{name} cannot be written: {left_out[name]}.")
    if job.batch_size != 1 and not any(FORMATS[name].family == "tflite" for name in limits):
        raise ValueError("--batch_size is for TFLite files, and none is to be exported.")
    return limits, left_out


def _earlier(output_dir, names, description, overwrite):
    """Entries of an earlier export of the same weights whose files are there, and its licence."""
    try:
        report = read_report(output_dir)
    except ValueError:
        if not overwrite:
            raise
        report = None
    there = {
        name: entry
        for name, entry in (report.entries if report else {}).items()
        if entry.written
        and (output_dir / entry.path).exists()
        and export_folder.digest_of(output_dir / entry.path) == entry.sha256
    }
    for name, format_ in FORMATS.items():
        path = output_dir / format_.target
        if path.exists() and name not in {*names, *there}:
            raise FileExistsError(
                f"{path} is as no report says, perhaps of an export that was killed; export {name} "
                "anew too, with --overwrite, move it away, or choose another --output_dir."
            )
    if report is None or report.model == description:
        return there, report and report.license
    others = [entry.path for name, entry in there.items() if name not in names]
    if others:
        raise ValueError(
            f"{output_dir} holds {', '.join(others)} of another model; export these anew too, or "
            "choose another folder with --output_dir."
        )
    return {}, None


def _write_and_compare(job, folder, limits, compare_on, left_out):
    """Writes the formats of `limits` into a folder; gives each one's `Entry`.

    What fails joins `left_out`, with the reason, and costs the others nothing.
    """
    expected = functools.cache(lambda answers_of: answers_of(job.trained, compare_on))
    entries = {}
    for name, limit in limits.items():
        try:
            entries[name] = _write_and_measure(name, limit, job, folder, compare_on, expected)
        except OSError:
            raise
        except Exception as error:  # converters and runtimes have no class of errors in common
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            left_out[name] = f"{job.trained.model.name} cannot be converted or run ({reason})"
    return entries


def _write_and_measure(name, limit, job, folder, compare_on, expected):
    format_ = FORMATS[name]
    family, path = families(job.trained)[format_.family], folder / format_.target
    with waiting(f"Writing {format_.target}"), export_folder.explained(format_.target):
        family.write(job, format_.kind, path)
    calibrated_on = job.calibration if format_.kind == "int8" else None
    with full_float32(), waiting(f"Comparing {format_.target} with the Keras model"):
        agreement = family.compare(expected(family.expected), family.answers(path, compare_on))
    with full_float32(), waiting(f"Timing {format_.target}"):
        latency_ms = {
            str(threads): median_milliseconds(family.call(path, compare_on.crops[0], threads))
            for threads in family.threads
        }
    return Entry(
        format=name,
        path=format_.target,
        bytes=export_folder.size_of(path),
        sha256=export_folder.digest_of(path),
        agreement=agreement,
        min_agreement=limit,
        latency_ms=latency_ms,
        batch_size=job.batch_size if format_.family == "tflite" else 1,
        compared_on=compare_on.origin,
        calibrated_on=calibrated_on and f"{len(calibrated_on):,} {calibrated_on.origin}",
        written=True,
    )


def _write_texts(trained, report, folder):
    """The model card, the class names and the report."""
    texts = (model_card(trained, report), class_names_text(trained.class_names), report.to_json())
    with export_folder.explained("report.json"):
        for name, text in zip(export_folder.TEXTS, texts, strict=True):
            (folder / name).write_bytes(text.encode())
