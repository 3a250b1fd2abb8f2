import dataclasses
import itertools
import os
import pathlib
import signal
import time

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import DataConfig
from pit_keras.errors import sigterm_as_ctrl_c
from pit_keras.export.agreement import compare, take_sample
from pit_keras.export.export_folder import check_targets, exclusive_folder, put_in_place
from pit_keras.export.export_report import read_report
from pit_keras.export.exporting import ExportError, export
from pit_keras.export.families import in_float32
from pit_keras.export.formats import DEFAULT_FORMATS, FORMATS, TOLERANCE
from pit_keras.runs.trained_model import TrainedModel

TEXTS = {"report.json", "README.md", "classes.txt"}


class DependsOnStaticBatch(keras.layers.Layer):
    """Adds 1 where the batch is known to be one image: in Keras and TFLite, not in a SavedModel."""

    def call(self, inputs):
        return inputs + 1.0 if inputs.shape[0] == 1 else inputs


class CountsItsCalls(keras.layers.Layer):
    """Computes something else each time that Python runs it, so no traced graph can agree."""

    def __init__(self):
        super().__init__()
        self.calls = itertools.count()

    def call(self, inputs):
        return inputs + float(next(self.calls))


def classifier_with(layer):
    """A trained model of one Dense layer on the mean colours, with a layer in between."""
    images = keras.Input((32, 32, 3))
    outputs = keras.layers.Dense(10)(layer(keras.layers.GlobalAveragePooling2D()(images)))
    data = DataConfig(image_size=(32, 32))
    return TrainedModel(keras.Model(images, outputs, name="spoiled"), tuple("abcdefghij"), data)


def contents(folder):
    """All files below a folder, as {relative path: bytes}."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def sample(photographs):
    """One piece of a photograph, for models of 32 x 32 pixels."""
    return take_sample(photographs[:1], DataConfig(image_size=(32, 32)), "pieces")


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_files_the_report_and_the_card_come_together(make_trained, photographs, tmp_path):
    output_dir, trained = tmp_path / "new" / "folder", make_trained("pit_ti_distilled")
    sample, said = take_sample(photographs, trained.data, "pieces"), []
    report = export(
        trained, output_dir, ("saved_model", "tflite"), compare_on=sample, announce=said.append
    )
    assert names_in(output_dir) == {"saved_model", "model.tflite", *TEXTS}
    assert read_report(output_dir) == report
    saved_model, tflite = report.entries["saved_model"], report.entries["tflite"]
    assert tflite.bytes == len((output_dir / tflite.path).read_bytes())
    assert saved_model.bytes == sum(map(len, contents(output_dir / saved_model.path).values()))
    for entry in (saved_model, tflite):
        assert entry.agreement.images == 8
        assert entry.agreement.top1_agreement == 1.0
        assert entry.accepted
        assert entry.written
        assert all(0 < latency < 10_000 for latency in entry.latency_ms.values())
    assert tflite.latency_ms.keys() == {"1", "2"}
    assert (output_dir / "classes.txt").read_text().splitlines() == list(trained.class_names)
    assert said[0] == "Writing saved_model/1"


def test_by_default_all_is_written_that_can_be(sample, tmp_path):
    report = export(classifier_with(keras.layers.ReLU()), tmp_path, compare_on=sample)
    assert set(report.entries) == set(DEFAULT_FORMATS) - {"tflite_int8"}
    assert set(report.left_out) == {"tflite_int8"}
    assert (
        "32 or more images to be calibrated on, and there are 0" in report.left_out["tflite_int8"]
    )
    with pytest.raises(ValueError, match="tflite_int8 cannot be written: it needs 32 or more"):
        export(classifier_with(keras.layers.ReLU()), tmp_path, ("tflite_int8",), compare_on=sample)


@pytest.mark.parametrize(
    ("layer", "wrong", "right"),
    [
        (DependsOnStaticBatch, "saved_model", "tflite"),
        (CountsItsCalls, "tflite", None),
    ],
)
def test_what_does_not_agree_is_left_out(tmp_path, sample, layer, wrong, right):
    export(classifier_with(keras.layers.ReLU()), tmp_path / "old", (wrong,), compare_on=sample)
    before = contents(tmp_path / "old")
    for output_dir in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(ExportError, match=f"Nothing was written: {wrong} does not agree with"):
            export(
                classifier_with(layer()), output_dir, (wrong,), compare_on=sample, overwrite=True
            )
    assert contents(tmp_path / "old") == before
    assert names_in(tmp_path) == {"old"}
    if right:
        report = export(
            classifier_with(layer()),
            tmp_path / "old",
            (wrong, right),
            compare_on=sample,
            overwrite=True,
        )
        assert [entry.format for entry in report.rejected] == [wrong]
        assert not report.entries[wrong].written
        # The earlier file is of another model, so it does not stay.
        assert names_in(tmp_path / "old") == {FORMATS[right].target, *TEXTS}


class Refuses(keras.layers.Layer):
    """Computes an operation that neither TFLite nor ONNX has built in."""

    def call(self, inputs):
        return inputs + 0.0 * tf.math.bessel_i0e(inputs)


def test_what_cannot_be_converted_is_left_out_or_told(tmp_path, sample):
    trained = classifier_with(Refuses())
    report = export(trained, tmp_path / "all", compare_on=sample)
    assert set(report.entries) == {"saved_model"}
    assert set(report.left_out) == set(DEFAULT_FORMATS) - {"saved_model"}
    assert "it cannot be made of spoiled or not be run" in report.left_out["tflite"]
    with pytest.raises(ExportError, match="Nothing was written; tflite: it cannot be made of"):
        export(trained, tmp_path / "one", ("saved_model", "tflite"), compare_on=sample)
    assert names_in(tmp_path) == {"all"}


def test_what_does_not_agree_can_be_forced(tmp_path, sample):
    trained = classifier_with(DependsOnStaticBatch())
    report = export(trained, tmp_path, ("saved_model",), compare_on=sample, force=True)
    assert report.entries["saved_model"].written
    assert report.rejected == [report.entries["saved_model"]]
    assert (tmp_path / "saved_model").is_dir()
    assert "below what was asked for" in (tmp_path / "README.md").read_text()


def test_another_agreement_can_be_asked_for(tmp_path, photographs):
    """A model whose two likeliest classes are all but equal, so that 16 bits may exchange them."""
    trained = classifier_with(keras.layers.ReLU())
    kernel, bias = trained.model.layers[-1].get_weights()
    trained.model.layers[-1].set_weights([np.zeros_like(kernel), bias])
    bias[3], bias[4] = 1.0, 1.0 + 1e-6
    trained.model.layers[-1].set_weights([np.zeros_like(kernel), bias])
    sample = take_sample(photographs, trained.data, "pieces")
    formats = ("tflite_float16",)
    with pytest.raises(ExportError, match=r"99.0% of the likeliest classes must be the same"):
        export(trained, tmp_path, formats, compare_on=sample)
    report = export(
        trained, tmp_path, formats, compare_on=sample, min_agreement={"tflite_float16": 0.0}
    )
    assert report.entries["tflite_float16"].agreement.top1_agreement == 0.0
    assert report.entries["tflite_float16"].accepted


def test_weights_that_are_not_finite_are_not_exported(tmp_path, sample):
    trained = classifier_with(keras.layers.ReLU())
    trained.model.weights[-1].assign(np.full(10, np.nan))
    with pytest.raises(ExportError, match="its numbers, or the Keras model's, are not finite"):
        export(trained, tmp_path / "out", ("saved_model",), compare_on=sample)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_replaced_only_on_request(sample, tmp_path):
    formats = ("saved_model", "tflite")
    trained = classifier_with(keras.layers.ReLU())
    export(trained, tmp_path, formats, compare_on=sample)
    before = contents(tmp_path)
    renamed = dataclasses.replace(trained, class_names=tuple("klmnopqrst"))
    for format_ in formats:
        with pytest.raises(FileExistsError, match="exists already"):
            export(renamed, tmp_path, (format_,), compare_on=sample)
    assert contents(tmp_path) == before
    export(renamed, tmp_path, formats, compare_on=sample, overwrite=True)
    after = contents(tmp_path)
    assert after["saved_model/1/assets/classes.txt"] == b"k\nl\nm\nn\no\np\nq\nr\ns\nt\n"
    assert after["model.tflite"] != before["model.tflite"]
    assert names_in(tmp_path) == {"saved_model", "model.tflite", *TEXTS}


def test_a_form_of_the_same_weights_is_added(sample, tmp_path):
    trained = classifier_with(keras.layers.ReLU())
    first = export(trained, tmp_path, ("tflite",), compare_on=sample, license="MIT")
    second = export(trained, tmp_path, ("tflite_float16",), compare_on=sample)
    assert second.entries["tflite"] == first.entries["tflite"]
    assert read_report(tmp_path) == second
    assert second.license == "MIT"
    assert set(second.entries) == {"tflite", "tflite_float16"}
    other = classifier_with(keras.layers.ReLU())  # other random weights
    with pytest.raises(ValueError, match=r"holds model.tflite of another model; export these anew"):
        export(other, tmp_path, ("tflite_float16",), compare_on=sample, overwrite=True)
    report = export(
        other, tmp_path, ("tflite", "tflite_float16"), compare_on=sample, overwrite=True
    )
    assert read_report(tmp_path) == report


@pytest.mark.parametrize("name", ["README.md", "report.json", "classes.txt"])
def test_files_of_the_users_are_never_replaced(sample, tmp_path, name):
    (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=f"{name} was not written by pit-keras export"):
            export(
                classifier_with(keras.layers.ReLU()),
                tmp_path,
                ("tflite",),
                compare_on=sample,
                overwrite=overwrite,
            )
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ("onyx",)}, "Unknown format 'onyx'; known are saved_model, saved"),
        ({"formats": ()}, "No format to export to"),
        ({"batch_size": 4}, "A batch size of 4 is of TFLite files, of which none"),
        ({"min_agreement": {"saved_model": 0.9}}, "is held to 1e-04 of the largest logit"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, sample, arguments, message):
    arguments = {"formats": ("saved_model",), "compare_on": sample, **arguments}
    with pytest.raises(ValueError, match=message):
        export(classifier_with(keras.layers.ReLU()), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_output_folder(tmp_path, sample):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        export(classifier_with(keras.layers.ReLU()), tmp_path / "out", compare_on=sample)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    with pytest.raises(OSError, match="/proc cannot be written to: "):
        check_targets("/proc/new/folder", ("tflite",))
    check_targets(tmp_path / "new" / "folder", ("tflite",))
    assert not names_in(tmp_path)


def test_a_link_is_replaced_and_what_it_leads_to_is_not(sample, tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.tflite").symlink_to(tmp_path / "elsewhere")
    arguments = classifier_with(keras.layers.ReLU()), tmp_path / "out", ("tflite",)
    with pytest.raises(FileExistsError, match=r"model.tflite exists already; replace it with"):
        export(*arguments, compare_on=sample)
    export(*arguments, compare_on=sample, overwrite=True)
    assert not (tmp_path / "out/model.tflite").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize("path", ["model.tflite/mine", "saved_model/1/mine", "saved_model"])
def test_a_folder_or_file_of_the_users_is_in_the_way(sample, tmp_path, path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("mine")
    with pytest.raises(FileExistsError, match="move it away"):
        export(
            classifier_with(keras.layers.ReLU()),
            tmp_path,
            ("saved_model", "tflite"),
            compare_on=sample,
            overwrite=True,
        )
    assert contents(tmp_path) == {path: b"mine"}


def test_other_versions_stay(sample, tmp_path):
    (tmp_path / "saved_model/2").mkdir(parents=True)
    (tmp_path / "saved_model/2/newer").write_text("mine")
    arguments = classifier_with(keras.layers.ReLU()), tmp_path, ("saved_model",)
    export(*arguments, compare_on=sample)
    export(*arguments, compare_on=sample, overwrite=True)
    assert (tmp_path / "saved_model/2/newer").read_text() == "mine"
    assert {path.name for path in (tmp_path / "saved_model").iterdir()} == {"1", "2"}


def test_a_report_tells_only_of_what_is_there(sample, tmp_path):
    trained = classifier_with(keras.layers.ReLU())
    export(trained, tmp_path, ("tflite", "tflite_float16", "tflite_dynamic"), compare_on=sample)
    (tmp_path / "model.tflite").write_bytes(b"something else")
    (tmp_path / "model_float16.tflite").unlink()
    report = export(trained, tmp_path, ("saved_model",), compare_on=sample)
    assert set(report.entries) == {"saved_model", "tflite_dynamic"}


def test_an_export_that_ends_while_it_moves_leaves_no_false_report(sample, tmp_path):
    formats = ("tflite", "saved_model")
    export(classifier_with(keras.layers.ReLU()), tmp_path, formats, compare_on=sample)
    other = classifier_with(keras.layers.ReLU())
    with exclusive_folder(tmp_path) as folder:
        (folder / "model.tflite").write_bytes(b"of the other")
        with pytest.raises(OSError, match="saved_model/1 cannot be replaced"):
            put_in_place(folder, tmp_path, ["model.tflite", "saved_model/1"], [])
    assert names_in(tmp_path) == {"model.tflite", "saved_model"}
    report = export(other, tmp_path, formats, compare_on=sample, overwrite=True)
    assert read_report(tmp_path) == report
    assert names_in(tmp_path) == {"model.tflite", "saved_model", *TEXTS}


def test_a_damaged_report_is_told_and_can_be_replaced(sample, tmp_path):
    arguments = classifier_with(keras.layers.ReLU()), tmp_path
    export(*arguments, ("tflite",), compare_on=sample)
    (tmp_path / "report.json").write_text('{"model": ')
    with pytest.raises(ValueError, match=r"report.json is damaged, or not of this version"):
        export(*arguments, ("tflite_dynamic",), compare_on=sample)
    report = export(*arguments, ("tflite",), compare_on=sample, overwrite=True)
    assert read_report(tmp_path) == report


def test_two_exports_at_once_are_refused_and_leftovers_go(sample, tmp_path):
    arguments = classifier_with(keras.layers.ReLU()), tmp_path, ("tflite",)
    with (
        exclusive_folder(tmp_path),
        pytest.raises(OSError, match="Another process is exporting to"),
    ):
        export(*arguments, compare_on=sample)
    (tmp_path / ".export-killed").mkdir()
    (tmp_path / ".export-killed/model.tflite").write_text("half")
    export(*arguments, compare_on=sample)
    assert names_in(tmp_path) == {"model.tflite", *TEXTS}


def test_sigterm_leaves_nothing_behind(tmp_path):
    def half_an_export():
        with sigterm_as_ctrl_c(), exclusive_folder(tmp_path / "new") as folder:
            (folder / "model.tflite").write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        half_an_export()
    assert not names_in(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


# A file larger than the limit is what a full disk is: writing to it fails.
FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
import keras
from pit_keras.export.agreement import real_images
from test_exporting import DataConfig, classifier_with, export, take_sample
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sample = take_sample(real_images()[:1], DataConfig(image_size=(32, 32)), "pieces")
trained = classifier_with(keras.layers.ReLU())
for name in sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        export(trained, sys.argv[1], (name,), compare_on=sample)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(error)
"""


def test_a_full_disk_is_told_and_nothing_stays(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(FULL.format(tests=str(pathlib.Path(__file__).parent)))
    formats = ("saved_model", "tflite")
    done = forked.run_script(script, tmp_path / "out", *formats)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "cannot be written, nothing was exported: " in line
        assert "File too large" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_exported_in_float32(make_trained, photographs, tmp_path, policy):
    reference = make_trained("pit_ti_distilled")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        trained = make_trained("pit_ti_distilled")
    finally:
        keras.config.set_dtype_policy(before)
    trained.model.set_weights(reference.model.get_weights())
    # 16 bits do show, so an export of the mixed model would not pass for one in float32.
    assert not compare(reference.logits(photographs), trained.logits(photographs)).within(TOLERANCE)
    np.testing.assert_array_equal(
        in_float32(trained).logits(photographs), reference.logits(photographs)
    )
    sample = take_sample(photographs[:2], trained.data, "pieces")
    report = export(trained, tmp_path, ("tflite",), compare_on=sample)
    assert not report.rejected


def test_a_float32_model_is_exported_as_it_is(make_trained):
    trained = make_trained()
    assert in_float32(trained).model is trained.model
