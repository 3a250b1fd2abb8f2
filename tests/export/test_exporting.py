import dataclasses
import itertools
import pathlib
import shutil

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.config.fields import DataConfig
from pit_keras.export.agreement import compare, take_sample
from pit_keras.export.export_folder import exclusive_folder, put_in_place
from pit_keras.export.export_report import read_report
from pit_keras.export.exporting import ExportError, export
from pit_keras.export.families import in_float32
from pit_keras.export.formats import DEFAULT_FORMATS, FORMATS
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


class Refuses(keras.layers.Layer):
    """Computes an operation that neither TFLite nor ONNX has built in."""

    def call(self, inputs):
        return inputs + 0.0 * tf.math.bessel_i0e(inputs)


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


@pytest.fixture(scope="module")
def sample(photographs):
    """One piece of a photograph, for models of 32 x 32 pixels."""
    return take_sample(photographs[:1], DataConfig(image_size=(32, 32)), "pieces")


@pytest.fixture(scope="module")
def trained():
    return classifier_with(keras.layers.ReLU())


@pytest.fixture(scope="module")
def other():
    """A classifier with other random weights."""
    return classifier_with(keras.layers.ReLU())


@pytest.fixture(scope="module")
def made_once(trained, sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    formats = ("saved_model", "tflite", "tflite_dynamic")
    export(trained, folder, formats, compare_on=sample, license="MIT")
    return folder


@pytest.fixture
def earlier(made_once, tmp_path):
    """A folder to which `trained` was exported in three forms."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_files_the_report_and_the_card_come_together(exported):
    folder, report = exported.folder, exported.report
    targets = {FORMATS[name].target.partition("/")[0] for name in DEFAULT_FORMATS}
    assert names_in(folder) == {*targets, *TEXTS}
    assert read_report(folder) == report
    assert tuple(report.entries) == DEFAULT_FORMATS
    assert not report.left_out
    saved_model, tflite = report.entries["saved_model"], report.entries["tflite"]
    assert tflite.bytes == len((folder / tflite.path).read_bytes())
    assert saved_model.bytes == sum(map(len, contents(folder / saved_model.path).values()))
    for entry in report.entries.values():
        assert entry.agreement.images == 8
        assert entry.written
        assert all(0 < latency < 10_000 for latency in entry.latency_ms.values())
        assert entry.accepted or entry.min_agreement  # rounded numbers may decide differently
    for name in ("saved_model", "tflite", "onnx"):
        assert report.entries[name].agreement.top1_agreement == 1.0
    assert tflite.latency_ms.keys() == {"1", "2"}
    names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert names == list(exported.trained.class_names)


def test_what_cannot_be_calibrated_or_converted_is_left_out_or_told(tmp_path, sample):
    trained = classifier_with(Refuses())
    (tmp_path / "all").mkdir()
    (tmp_path / "all/model.tflite").write_text("of another model")
    report = export(trained, tmp_path / "all", compare_on=sample, overwrite=True)
    assert names_in(tmp_path / "all") == {"saved_model", *TEXTS}
    assert set(report.entries) == {"saved_model"}
    assert set(report.left_out) == set(DEFAULT_FORMATS) - {"saved_model"}
    assert "spoiled cannot be converted or run" in report.left_out["tflite"]
    assert "needs 32 or more images" in report.left_out["tflite_int8"]
    report = export(trained, tmp_path / "two", ("saved_model", "tflite"), compare_on=sample)
    assert (set(report.entries), set(report.left_out)) == ({"saved_model"}, {"tflite"})
    assert names_in(tmp_path / "two") == {"saved_model", *TEXTS}
    with pytest.raises(ExportError, match="Nothing was written: tflite: spoiled cannot be"):
        export(trained, tmp_path / "one", ("tflite",), compare_on=sample)
    with pytest.raises(ValueError, match="tflite_int8 cannot be written: it needs 32 or more"):
        export(trained, tmp_path / "one", ("tflite_int8",), compare_on=sample)
    assert names_in(tmp_path) == {"all", "two"}


def test_what_does_not_agree_leaves_what_is_there(earlier, sample):
    for name in ("model.tflite", "model_dynamic.tflite"):
        (earlier / name).unlink()
    before = contents(earlier)
    spoiled = classifier_with(DependsOnStaticBatch())
    with pytest.raises(ExportError, match="Nothing was written: saved_model does not agree with"):
        export(spoiled, earlier, ("saved_model",), compare_on=sample, overwrite=True)
    assert contents(earlier) == before


def test_what_does_not_agree_is_left_out(earlier, sample):
    (earlier / "model_dynamic.tflite").unlink()
    spoiled = classifier_with(DependsOnStaticBatch())
    formats = ("saved_model", "tflite")
    report = export(spoiled, earlier, formats, compare_on=sample, overwrite=True)
    assert [entry.format for entry in report.rejected] == ["saved_model"]
    assert not report.entries["saved_model"].written
    # The earlier one is of another model, so it does not stay.
    assert names_in(earlier) == {"model.tflite", *TEXTS}


def test_what_does_not_agree_leaves_no_new_folder(tmp_path, sample):
    with pytest.raises(ExportError, match="Nothing was written: tflite does not agree with"):
        export(classifier_with(CountsItsCalls()), tmp_path / "new", ("tflite",), compare_on=sample)
    assert not names_in(tmp_path)


def test_what_does_not_agree_can_be_forced(tmp_path, sample):
    trained = classifier_with(DependsOnStaticBatch())
    report = export(trained, tmp_path, ("saved_model",), compare_on=sample, force=True)
    assert report.entries["saved_model"].written
    assert report.rejected == [report.entries["saved_model"]]
    assert (tmp_path / "saved_model").is_dir()
    assert "below the limit of agreement" in (tmp_path / "README.md").read_text()


def test_another_agreement_can_be_asked_for(tmp_path, sample):
    """A model whose two likeliest classes are all but equal, so that 16 bits exchange them."""
    trained = classifier_with(keras.layers.ReLU())
    kernel, bias = trained.model.layers[-1].get_weights()
    bias[3], bias[4] = 1.0, 1.0 + 1e-6
    trained.model.layers[-1].set_weights([np.zeros_like(kernel), bias])
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


def test_what_is_there_is_replaced_only_on_request(earlier, trained, sample):
    before = contents(earlier)
    renamed = dataclasses.replace(trained, class_names=tuple("klmnopqrst"))
    for format_ in ("saved_model", "tflite"):
        with pytest.raises(FileExistsError, match="exists already"):
            export(renamed, earlier, (format_,), compare_on=sample)
    assert contents(earlier) == before
    formats = ("saved_model", "tflite")
    export(renamed, earlier, formats, compare_on=sample, overwrite=True)
    after = contents(earlier)
    assert after["saved_model/1/assets/classes.txt"] == b"k\nl\nm\nn\no\np\nq\nr\ns\nt\n"
    assert after["model.tflite"] != before["model.tflite"]
    assert names_in(earlier) == {"saved_model", "model.tflite", "model_dynamic.tflite", *TEXTS}


def test_a_form_of_the_same_weights_is_added(earlier, trained, other, sample):
    first, formats = read_report(earlier), ("tflite_float16",)
    second = export(trained, earlier, formats, compare_on=sample)
    assert set(second.entries) == {*first.entries, "tflite_float16"}
    for name, entry in first.entries.items():
        assert second.entries[name] == entry
    assert second.license == first.license == "MIT"
    assert read_report(earlier) == second
    with pytest.raises(ValueError, match=r"model.tflite.* of another model; export these anew"):
        export(other, earlier, formats, compare_on=sample, overwrite=True)
    assert read_report(earlier) == second


def test_a_report_tells_of_all_that_is_there(earlier, trained, sample):
    whole = (earlier / "model.tflite").read_bytes()
    (earlier / "model.tflite").write_bytes(b"something else")
    shutil.rmtree(earlier / "saved_model")
    with pytest.raises(OSError, match=r"model.tflite is as no report says, .*; export tflite anew"):
        export(trained, earlier, ("tflite_float16",), compare_on=sample)
    (earlier / "model.tflite").write_bytes(whole)
    report = export(trained, earlier, ("tflite_float16",), compare_on=sample)
    assert set(report.entries) == {"tflite", "tflite_dynamic", "tflite_float16"}


def test_a_damaged_report_is_told_and_can_be_replaced(earlier, trained, sample):
    (earlier / "report.json").write_text('{"model": ')
    (earlier / "model_dynamic.tflite").unlink()
    with pytest.raises(ValueError, match=r"report.json is damaged, .* --overwrite"):
        export(trained, earlier, ("tflite_dynamic",), compare_on=sample)
    formats = ("tflite", "saved_model")
    report = export(trained, earlier, formats, compare_on=sample, overwrite=True)
    assert read_report(earlier) == report


def test_an_export_that_ended_while_it_moved_leaves_no_false_report(earlier, other, sample):
    with exclusive_folder(earlier) as folder:
        (folder / "model.tflite").write_bytes(b"of the other")
        with pytest.raises(OSError, match="saved_model/1 cannot be replaced"):
            put_in_place(folder, earlier, ["model.tflite", "saved_model/1"], [])
    left = {"model.tflite", "model_dynamic.tflite", "saved_model"}
    assert names_in(earlier) == left
    # The next one leaves no file of another model beside its own either.
    with pytest.raises(OSError, match="saved_model/1 is as no report says"):
        export(other, earlier, ("tflite", "tflite_dynamic"), compare_on=sample, overwrite=True)
    assert names_in(earlier) == left
    formats = ("tflite", "tflite_dynamic", "saved_model")
    report = export(other, earlier, formats, compare_on=sample, overwrite=True)
    assert read_report(earlier) == report
    assert names_in(earlier) == {"model.tflite", "model_dynamic.tflite", "saved_model", *TEXTS}


@pytest.mark.parametrize("name", ["README.md", "report.json", "classes.txt"])
def test_files_of_the_users_are_never_replaced(trained, sample, tmp_path, name):
    (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=f"{name} was not written by pit-keras export"):
            export(trained, tmp_path, ("tflite",), compare_on=sample, overwrite=overwrite)
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ("onyx",)}, "Unknown format 'onyx'; known are saved_model, saved"),
        ({"batch_size": 4}, "--batch_size is for TFLite files"),
        ({"min_agreement": {"saved_model": 0.9}}, "is held to 1e-04 of the largest logit"),
    ],
)
def test_bad_input_is_one_sentence(trained, tmp_path, sample, arguments, message):
    arguments = {"formats": ("saved_model",), "compare_on": sample, **arguments}
    with pytest.raises(ValueError, match=message):
        export(trained, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_output_folder(trained, tmp_path, sample):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OSError, match="out cannot be written to"):
        export(trained, tmp_path / "out", compare_on=sample)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_link_is_replaced_and_what_it_leads_to_is_not(trained, sample, tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.tflite").symlink_to(tmp_path / "elsewhere")
    arguments = trained, tmp_path / "out", ("tflite",)
    with pytest.raises(FileExistsError, match=r"model.tflite exists already; replace it with"):
        export(*arguments, compare_on=sample)
    export(*arguments, compare_on=sample, overwrite=True)
    assert not (tmp_path / "out/model.tflite").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize("path", ["model.tflite/mine", "saved_model/1/mine", "saved_model"])
def test_a_folder_or_file_of_the_users_is_in_the_way(trained, sample, tmp_path, path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("mine")
    formats = ("saved_model", "tflite")
    with pytest.raises(FileExistsError, match="move it away"):
        export(trained, tmp_path, formats, compare_on=sample, overwrite=True)
    assert contents(tmp_path) == {path: b"mine"}


def test_other_versions_stay(trained, sample, tmp_path):
    (tmp_path / "saved_model/2").mkdir(parents=True)
    (tmp_path / "saved_model/2/newer").write_text("mine")
    arguments = trained, tmp_path, ("saved_model",)
    export(*arguments, compare_on=sample)
    export(*arguments, compare_on=sample, overwrite=True)
    assert (tmp_path / "saved_model/2/newer").read_text() == "mine"
    assert names_in(tmp_path / "saved_model") == {"1", "2"}


def test_a_folder_that_is_being_exported_to_is_refused(earlier, trained, sample):
    with exclusive_folder(earlier), pytest.raises(OSError, match="Another process is exporting to"):
        export(trained, earlier, ("tflite_float16",), compare_on=sample)


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


def test_mixed_precision_is_exported_in_float32(sample, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trained = classifier_with(keras.layers.ReLU())
    finally:
        keras.config.set_dtype_policy(before)
    report = export(trained, tmp_path, ("tflite",), compare_on=sample)
    assert report.entries["tflite"].accepted
    # 16 bits do show, so an export of the mixed model would not pass for one in float32.
    logits = (each.logits_of_crops(sample.crops) for each in (in_float32(trained), trained))
    assert not compare(*logits).within()
