import dataclasses
import itertools

import keras
import numpy as np
import pytest

from pit_keras.evaluation.trained_model import TrainedModel
from pit_keras.export.agreement import TOLERANCE, compare
from pit_keras.export.exporting import ExportError, check_targets, export
from pit_keras.export.precision import in_float32
from pit_keras.training.config import DataConfig


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


def test_both_formats_by_default(make_trained, tmp_path):
    output_dir = tmp_path / "new" / "folder"
    saved_model, tflite = export(make_trained("pit_ti_distilled"), output_dir)
    assert (saved_model.format, saved_model.path) == ("saved_model", output_dir / "saved_model")
    assert (tflite.format, tflite.path) == ("tflite", output_dir / "model.tflite")
    assert {path.name for path in output_dir.iterdir()} == {"saved_model", "model.tflite"}
    assert tflite.bytes == len(tflite.path.read_bytes())
    assert saved_model.bytes == sum(map(len, contents(saved_model.path).values()))
    for exported in (saved_model, tflite):
        assert exported.agreement.images == 8
        assert exported.agreement.within()
        assert exported.agreement.top1_agreement == 1.0


@pytest.mark.parametrize(
    ("layer", "formats", "wrong"),
    [
        (DependsOnStaticBatch, ("tflite", "saved_model"), "saved_model"),
        (CountsItsCalls, ("tflite",), "tflite"),
    ],
)
def test_an_export_that_does_not_agree_changes_nothing(
    tmp_path, photographs, layer, formats, wrong
):
    export(classifier_with(keras.layers.ReLU()), tmp_path / "old", images=photographs[:1])
    before = contents(tmp_path / "old")
    assert {"model.tflite", "saved_model/1/saved_model.pb"} <= set(before)
    for output_dir in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(ExportError, match=f"The {wrong} export of spoiled does not agree"):
            export(
                classifier_with(layer()), output_dir, formats, images=photographs, overwrite=True
            )
    assert contents(tmp_path / "old") == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        path.name for path in [tmp_path / "old", *(tmp_path / "old").rglob("*")]
    )


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    trained = classifier_with(keras.layers.ReLU())
    trained.model.weights[-1].assign(np.full(10, np.nan))
    with pytest.raises(ExportError, match="differ by at most nan"):
        export(trained, tmp_path / "out", ("saved_model",))
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_replaced_only_on_request(make_trained, photographs, tmp_path):
    trained, images = classifier_with(keras.layers.ReLU()), photographs[:1]
    export(trained, tmp_path, images=images)
    before = contents(tmp_path)
    renamed = dataclasses.replace(trained, class_names=tuple("klmnopqrst"))
    for formats in (("saved_model",), ("tflite",)):
        with pytest.raises(FileExistsError, match="exists already"):
            export(renamed, tmp_path, formats, images)
    assert contents(tmp_path) == before
    export(renamed, tmp_path, images=images, overwrite=True)
    after = contents(tmp_path)
    assert after["saved_model/1/assets/classes.txt"] == b"k\nl\nm\nn\no\np\nq\nr\ns\nt\n"
    assert after["model.tflite"] != before["model.tflite"]
    assert {path.name for path in tmp_path.iterdir()} == {"saved_model", "model.tflite"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ("onyx",)}, "Unknown format 'onyx'; known are saved_model, tflite"),
        ({"images": []}, "There are no images"),
        ({"images": [np.zeros((8, 8, 3), np.float32)]}, "must be uint8"),
        ({"images": [np.zeros((8, 8), np.uint8)]}, r"got uint8 of shape \(8, 8\)"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(classifier_with(keras.layers.ReLU()), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        export(classifier_with(keras.layers.ReLU()), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_told_and_links_and_files_are_replaced(
    photographs, tmp_path
):
    trained, images = classifier_with(keras.layers.ReLU()), photographs[:1]
    (tmp_path / "saved_model").symlink_to("nowhere")
    (tmp_path / "model.tflite").mkdir()

    with pytest.raises(OSError, match="/proc cannot be written to: "):
        check_targets("/proc/new/folder")
    with pytest.raises(OSError, match="saved_model exists already; replace it with --overwrite"):
        check_targets(tmp_path)
    check_targets(tmp_path / "new" / "folder")
    assert len(list(tmp_path.iterdir())) == 2

    export(trained, tmp_path, images=images, overwrite=True)

    assert not (tmp_path / "saved_model").is_symlink()
    assert (tmp_path / "saved_model" / "1" / "saved_model.pb").is_file()
    assert (tmp_path / "model.tflite").is_file()
    assert len(list(tmp_path.iterdir())) == 2


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
    for exported in export(trained, tmp_path, images=photographs[:2]):
        assert exported.agreement.within()


def test_a_float32_model_is_exported_as_it_is(make_trained):
    trained = make_trained()
    assert in_float32(trained).model is trained.model
