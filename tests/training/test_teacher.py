import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from steps import convolutional, path_of
from tolerances import assert_close

from pit_keras.create import create_model
from pit_keras.data.labelled_images import open_source
from pit_keras.export.saved_model import export_saved_model
from pit_keras.models.inference import with_dtype_policy
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_model import load_trained_model
from pit_keras.training.teacher import load_teacher

SIDE = 20
NARROW = {"patch_size": 4, "stride": 4, "head_dim": 4, "depths": (1, 1, 1), "heads": (1, 2, 4)}
# Results that are rounded one after the other: eleven in a block, two in a pooling, five around.
OPERATIONS = 3 * 11 + 2 * 2 + 5


def network(side=SIDE, classes=3, name="pit_ti"):
    """With dropout, which a teacher must not have."""
    return create_model(name, classes=classes, input_shape=(side, side, 3), drop_rate=0.5, **NARROW)


def shallow(classes=3):
    """With dropout too; the network that is exported soonest."""
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depth": 1, "drop_rate": 0.5}
    return create_model("vit_ti", classes=classes, input_shape=(SIDE, SIDE, 3), **sizes)


def images(side=SIDE, batch=4):
    return np.float32(np.random.default_rng(0).normal(size=(batch, side, side, 3)))


@pytest.fixture
def config(make_tiny_config):
    config = make_tiny_config()
    config.distillation.kind = "hard"
    config.data.image_size = (SIDE, SIDE)
    return config


@pytest.fixture
def source(config):
    return open_source(config.data.dataset)


def run_folder(path, config, model, classes=("0", "1", "2")):
    """A run folder as training leaves it, with a model that nobody trained."""
    folder = RunFolder(path)
    folder.create(config, classes)
    model.save(folder.model)
    return str(path)


def test_a_run_folder_teaches_what_its_model_says(config, source, tmp_path):
    model = network()
    config.distillation.teacher = run_folder(tmp_path / "run", config, model)
    teacher = load_teacher(config, source)
    np.testing.assert_array_equal(teacher(images()), model(images()))


def test_classes_are_matched_by_name_and_others_of_the_teacher_left_out(config, source, tmp_path):
    model, names = network(classes=4), ("2", "other", "0", "1")
    config.distillation.teacher = run_folder(tmp_path / "run", config, model, names)
    taught = load_teacher(config, source)(images())
    np.testing.assert_array_equal(taught, model(images()).numpy()[:, [2, 3, 0]])


def test_a_keras_file_alone_is_taken_by_its_number_of_classes(config, source, tmp_path):
    model, file = network(), tmp_path / "teacher.keras"
    model.save(file)
    config.distillation.teacher = str(file)
    teacher = load_teacher(config, source)
    np.testing.assert_array_equal(teacher(images()), model(images()))
    digits = open_source("digits")  # of ten classes
    with pytest.raises(ValueError, match=r"class names for the"):
        load_teacher(config, digits)


def test_a_saved_model_teaches(config, source, tmp_path):
    model = shallow()
    model.export(str(tmp_path / "saved" / "1"), verbose=False)
    for folder in (tmp_path / "saved" / "1", tmp_path / "saved"):
        config.distillation.teacher = str(folder)
        teacher = load_teacher(config, source)
        assert_close(teacher(images()), model(images()), roundings=path_of(model))


def test_a_saved_model_with_its_own_preprocessing_is_refused(config, source, tmp_path):
    trained = load_trained_model(run_folder(tmp_path / "run", config, shallow()))
    export_saved_model(trained, tmp_path / "out" / "1")
    for folder in (tmp_path / "out" / "1", tmp_path / "out"):
        config.distillation.teacher = str(folder)
        with pytest.raises(ValueError, match="give its run folder"):
            load_teacher(config, source)


def test_a_saved_model_of_other_classes_is_refused(config, source, tmp_path, capsys):
    shallow(classes=4).export(str(tmp_path / "saved"), verbose=False)
    config.distillation.teacher = str(tmp_path / "saved")
    with pytest.raises(ValueError, match="not logits of 3 classes"):
        load_teacher(config, source)
    assert (
        "saved is a SavedModel, a program that runs here with your rights."
        in capsys.readouterr().out
    )


def test_a_model_by_name_needs_weights_of_the_datas_classes(config, source, tmp_path):
    file = tmp_path / "vit.keras"
    model = create_model("vit_ti", classes=3, input_shape=(SIDE, SIDE, 3))
    model.save(file)
    config.distillation.teacher, config.distillation.teacher_weights = "vit_ti", str(file)
    teacher = load_teacher(config, source)
    np.testing.assert_array_equal(teacher(images()), model(images()))

    digits = open_source("digits")
    with pytest.raises(ValueError, match=r"lacks weights for the 10 classes .* --teacher=PATH"):
        load_teacher(config, digits)


def test_statistics_of_the_teacher_stay_as_they_are(config, source, tmp_path):
    file = tmp_path / "resnet.keras"
    convolutional(classes=3).save(file)
    config.distillation.teacher = str(file)
    teacher = load_teacher(config, source)
    first = teacher(images())
    teacher(images() * 5)
    np.testing.assert_array_equal(teacher(images()), first)


def test_images_are_resized_for_a_teacher_of_another_size(config, source, tmp_path, capsys):
    model = network(side=40)
    config.distillation.teacher = run_folder(tmp_path / "run", config, model)
    teacher = load_teacher(config, source)
    assert "resized from 20 x 20 to 40 x 40" in capsys.readouterr().out
    enlarged = tf.image.resize(images(), (40, 40), method="bicubic", antialias=True)
    # Sums over the rows and the columns come before those of the network.
    assert_close(teacher(images()), model(enlarged), roundings=2 * SIDE + path_of(model))
    assert teacher(images()).shape == (4, 3)


@pytest.mark.parametrize(
    ("teacher", "weights", "message"),
    [
        ("pit_m", "imagenet", "'pit_m' is neither a model's name .* nor a run folder"),
        ("nowhere.keras", "imagenet", "nowhere.keras does not exist"),
        ("nowhere.keras", "w.keras", "teacher_weights=w.keras: nowhere.keras has its own"),
        ("resnet50", "w.keras", "There is no weights file w.keras"),
    ],
)
def test_what_is_no_teacher(teacher, weights, message, config, source):
    config.distillation.teacher, config.distillation.teacher_weights = teacher, weights
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_teacher(config, source)


def test_a_teacher_of_other_classes_or_normalisation_is_refused(config, source, tmp_path):
    model = shallow()
    other = run_folder(tmp_path / "other", config, model, classes=("0", "1", "two"))
    config.distillation.teacher = other
    with pytest.raises(
        ValueError, match=r"has '2' among its 3 classes, which the teacher .*other lacks"
    ):
        load_teacher(config, source)

    path = run_folder(tmp_path / "run", config, model)
    content = json.loads(RunFolder(path).config.read_text())
    content["data"]["mean"] = [0.5, 0.5, 0.5]
    RunFolder(path).config.write_text(json.dumps(content))
    config.distillation.teacher = path
    with pytest.raises(ValueError, match=r"data.mean=\(0.5, 0.5, 0.5\)"):
        load_teacher(config, source)


def test_a_teacher_computes_in_the_students_precision(config, source, tmp_path):
    model = network()
    config.distillation.teacher = run_folder(tmp_path / "run", config, model)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        teacher = load_teacher(config, source)
        half = teacher(images())
    finally:
        keras.config.set_dtype_policy("float32")
    assert half.dtype == tf.float32
    assert (half.numpy() != model(images()).numpy()).any()
    assert_close(half, model(images()), roundings=OPERATIONS, dtype="bfloat16")


def test_another_precision_keeps_weights_and_the_classifiers_own():
    model = network(name="pit_ti_distilled")
    assert with_dtype_policy(model, "float32") is model
    half = with_dtype_policy(model, "mixed_bfloat16")
    assert half.get_layer("stage1_block1").compute_dtype == "bfloat16"
    assert half.get_layer("head_dist").compute_dtype == "float32"
    for a, b in zip(model.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again = with_dtype_policy(half, "float32")
    np.testing.assert_array_equal(again(images()), model(images()))
