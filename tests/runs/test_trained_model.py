"""A small trained model, its run folder and its predictions, against plain NumPy."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from tolerances import assert_close

from pit_keras.config.fields import Config, DataConfig
from pit_keras.create import create_model
from pit_keras.imagenet import class_names
from pit_keras.runs.run_folder import RunFolder
from pit_keras.runs.trained_model import (
    TrainedModel,
    load_trained_model,
    predict,
    read_class_names,
)

NAMES = ("red", "grün", "deep blue", "dark")  # beyond ASCII and with spaces
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
DATA = DataConfig(image_size=(8, 6), mean=MEAN, std=STD, eval_crop=0.5)
KERNEL = np.eye(3, 4)
BIAS = np.array([0.1, 0.2, 0.3, 0.4])
COLOURS = {"red": (255, 10, 20), "green": (30, 240, 0), "blue": (0, 60, 200), "black": (5, 0, 0)}


def colour_model(classes=4, **dense):
    """Images (B, 8, 6, 3) -> the mean of each channel, and a constant for darkness."""
    model = keras.Sequential(
        [
            keras.Input((8, 6, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, **dense),
        ]
    )
    model.layers[-1].set_weights([KERNEL[:, :classes], BIAS[:classes]])
    return model


def assert_share(share, expected):
    """Sums over the pixels that resizing takes, twice at most 30, over those of an image, 48, and
    over three channels, of numbers that normalising makes as large as `1 / STD`; then a softmax.
    """
    assert_close(share, expected, roundings=2 * 30 + 48 + 3 + 10, scale=1 / min(STD))


def probabilities(colour, mean=MEAN, std=STD):
    """What the model answers for an image of one colour, whatever its size."""
    logits = (np.array(colour) / 255 - mean) / std @ KERNEL + BIAS
    return np.exp(logits) / np.exp(logits).sum()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a model, not to be changed."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "colours")
    folder.create(Config(data=DATA), NAMES)
    colour_model().save(folder.model)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A PNG of each colour, each of another size."""
    root = tmp_path_factory.mktemp("images")
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (5 + 7 * number, 9 + 2 * number), colour).save(root / f"{name}.png")
    return {name: root / f"{name}.png" for name in COLOURS}


def test_a_run_folder_and_its_model_file_are_the_same_model(run):
    for path in (run.path, run.model, str(run.path), str(run.model)):
        trained = load_trained_model(path)
        assert trained.class_names == NAMES
        assert trained.data == DATA
        np.testing.assert_array_equal(trained.model.get_weights()[0], KERNEL.astype("float32"))
        assert load_trained_model(path, ["a", "b", "c", "d"]).class_names == ("a", "b", "c", "d")


def test_a_file_elsewhere_has_numbers_for_names_and_the_usual_preprocessing(run, tmp_path):
    alone = shutil.copy(run.model, tmp_path / "alone.keras")
    trained = load_trained_model(alone)
    assert trained.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert trained.data == DataConfig(image_size=(8, 6))
    assert load_trained_model(alone, NAMES).class_names == NAMES


def test_a_thousand_classes_without_names_are_imagenets(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 6, 3)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(1000)]
    )
    model.save(tmp_path / "alone.keras")
    with pytest.warns(UserWarning, match="called by ImageNet's names"):
        trained = load_trained_model(tmp_path / "alone.keras")
    assert trained.class_names == class_names()
    own = [str(index) for index in range(1000)]
    assert load_trained_model(tmp_path / "alone.keras", own).class_names == tuple(own)


def test_without_its_configuration_a_runs_model_is_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path, dirs_exist_ok=True)
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 0, "loss": 1.0}])
    folder.config.unlink()
    for path in (folder.path, folder.model):
        with pytest.raises(OSError, match=r"config\.json, which says how .* put a copy back"):
            load_trained_model(path)


def test_other_names_are_taken_and_none_in_anothers_place(run):
    names = ("rot", "Grün", "tiefblau", "dunkel")
    assert load_trained_model(run.path, names).class_names == names
    for wrong in (("grün", "red", "deep blue", "dark"), ("RED", "dunkel", "Deep blue", "Grün")):
        with pytest.raises(ValueError, match=r"The class names given have .* in the place of"):
            load_trained_model(run.path, wrong)


def test_the_image_size_is_the_models_own(run, tmp_path):
    shutil.copytree(run.path, tmp_path, dirs_exist_ok=True)
    RunFolder(tmp_path).config.write_text(Config(data=DataConfig(image_size=(9, 9))).to_json())
    assert load_trained_model(tmp_path).data.image_size == (8, 6)


def test_predictions_are_softmax_in_order_for_images_of_any_size(run, images):
    trained = load_trained_model(run.path)
    predictions = predict(trained, list(images.values()), top=3)
    assert [best[0][0] for best in predictions] == list(NAMES)
    for colour, best in zip(COLOURS.values(), predictions, strict=True):
        expected = probabilities(colour)
        order = np.argsort(expected)[::-1][:3]
        assert [name for name, _ in best] == [NAMES[index] for index in order]
        assert_share([share for _, share in best], expected[order])


def test_the_runs_own_mean_and_std_are_used(run, images, tmp_path):
    alone = load_trained_model(shutil.copy(run.model, tmp_path / "alone.keras"), NAMES)
    assert alone.data.mean != MEAN
    expected = probabilities(COLOURS["blue"], alone.data.mean, alone.data.std)
    (((name, share), *_),) = predict(alone, [images["blue"]])
    assert name == "deep blue"
    assert_share(share, expected[2])
    assert expected[2] != pytest.approx(probabilities(COLOURS["blue"])[2], rel=1e-2)


def test_images_do_not_depend_on_each_other(run, images):
    trained = load_trained_model(run.path)
    together = predict(trained, list(images.values()))
    for path, best in zip(images.values(), together, strict=True):
        alone = dict(predict(trained, [path])[0])
        assert alone.keys() == dict(best).keys()
        for name, share in best:
            assert_share(share, alone[name])


def test_only_the_runs_centre_crop_is_looked_at(run, tmp_path):
    """The middle 40 x 30 of 80 x 60 pixels, and as far around as the resizing reaches."""
    picture = np.full((80, 60, 3), 255, "uint8")
    picture[8:-8, 6:-6] = COLOURS["green"]
    Image.fromarray(picture).save(tmp_path / "framed.png")
    (((name, share), *_),) = predict(load_trained_model(run.path), [tmp_path / "framed.png"])
    assert name == "grün"
    assert_share(share, probabilities(COLOURS["green"])[1])


def test_more_classes_than_there_are_gives_all_of_them(run, images):
    (best,) = predict(load_trained_model(run.path), [images["red"]], top=100)
    assert sorted(name for name, _ in best) == sorted(NAMES)
    assert sum(share for _, share in best) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, r"There is no image at .*odd\.png"),
        (b"not an image", ValueError, r"odd\.png cannot be read as a JPEG or PNG image"),
    ],
)
def test_one_bad_image_among_several_stops_all_before_the_first(
    images, tmp_path, content, error, message
):
    class Classifier:
        class_names, apply_orientation = NAMES, False

        def logits(self, images):
            raise AssertionError("an image was shown to the model")

    path = tmp_path / "odd.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        predict(Classifier(), [images["red"], path, images["blue"]])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, r"No such file.*names\.txt"),
        (b"gr\xfcn\n", ValueError, r"names\.txt is not UTF-8 text with a class name a line"),
    ],
)
def test_a_file_of_class_names_that_cannot_be_read(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(error, match=message):
        read_class_names(tmp_path / "names.txt")


def test_class_names_are_utf_8_with_or_without_a_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "names.txt").write_text("grün\ntwo words\n", encoding=encoding)
        assert read_class_names(tmp_path / "names.txt") == ("grün", "two words")


def test_what_is_not_a_keras_file_is_no_model(run, images):
    with pytest.raises(
        ValueError, match=r"red\.png is not a model; give a run folder or a \.keras"
    ):
        load_trained_model(images["red"])
    with pytest.raises(ValueError, match=r"classes\.txt is not a model"):
        load_trained_model(run.classes)


def test_no_images_are_an_error(run):
    with pytest.raises(ValueError, match="There are no images to look at"):
        predict(load_trained_model(run.path), [])


def test_what_is_not_there_is_told(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; give a run folder or a"):
        load_trained_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.keras does not exist"):
        load_trained_model(run.path / "nowhere.keras")
    RunFolder(tmp_path / "started").create(run.read_config(), NAMES)
    with pytest.raises(FileNotFoundError, match=r"started has no model\.keras yet"):
        load_trained_model(tmp_path / "started")


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_model_is_refused(run, kept, tmp_path):
    path, content = tmp_path / "damaged.keras", run.model.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    with pytest.raises(ValueError, match=r"damaged\.keras cannot be loaded as a Keras model"):
        load_trained_model(path)


@pytest.mark.parametrize(("names", "number"), [(NAMES[:3], 3), ((*NAMES, "more"), 5), ((), 0)])
def test_names_must_be_as_many_as_classes(run, names, number):
    with pytest.raises(ValueError, match=f"There are {number} class names for the 4 classes of "):
        load_trained_model(run.path, names)


def test_a_runs_names_that_do_not_fit_its_model_are_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path, dirs_exist_ok=True)
    RunFolder(tmp_path).classes.write_text("red\n")
    with pytest.raises(ValueError, match="There are 1 class names for the 4 classes of "):
        load_trained_model(tmp_path)


def grey_model():
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])


def two_outputs_model():
    images = keras.Input((8, 6, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    return keras.Model(images, [keras.layers.Dense(count)(pooled) for count in (4, 2)])


def softmax_operation_model():
    model = colour_model()
    return keras.Model(model.inputs[0], keras.ops.softmax(model.outputs[0]))


def model_in_a_model():
    return keras.Sequential([keras.Input((8, 6, 3)), colour_model(activation="softmax")])


def two_softmaxes_model():
    """The mean of the probabilities of two heads."""
    images = keras.Input((8, 6, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    heads = [keras.layers.Dense(4, activation="softmax")(pooled) for _ in range(2)]
    return keras.Model(images, keras.layers.Average()(heads))


def registered_model(name):
    return create_model(
        name,
        classes=10,
        input_shape=(16, 16, 3),
        patch_size=4,
        stride=4,
        head_dim=8,
        depths=(1, 1, 1),
        classifier_activation="softmax",
    )


def map_model():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (grey_model, r"takes \(None, 8, 8, 1\), not RGB images"),
        (map_model, "does not end in logits"),
        (lambda: colour_model(activation="softmax"), "does not end in logits"),
        (two_outputs_model, "does not end in logits"),
        (lambda: registered_model("pit_ti"), "does not end in logits"),
        (lambda: registered_model("pit_ti_distilled"), "does not end in logits"),
        (softmax_operation_model, "gives probabilities, not logits"),
        (model_in_a_model, "gives probabilities, not logits"),
        (two_softmaxes_model, "gives probabilities, not logits"),
    ],
    ids=[
        *("grey", "map", "softmax", "two outputs", "pit_ti", "pit_ti_distilled"),
        *("softmax operation", "model in a model", "two softmaxes"),
    ],
)
def test_a_model_that_is_no_classifier_of_images_is_refused(make, message, tmp_path):
    make().save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=rf"other\.keras {message}"):
        load_trained_model(tmp_path / "other.keras")


@pytest.mark.parametrize("applied", [False, True])
def test_a_photograph_is_turned_where_the_training_turned_them(tmp_path, applied):
    stripes = np.zeros((40, 90, 3), np.uint8)
    stripes[:, :60, 0] = stripes[20:, :, 2] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(stripes).save(tmp_path / "lying.jpg", exif=exif)
    with Image.open(tmp_path / "lying.jpg") as picture:
        (ImageOps.exif_transpose(picture) if applied else picture).save(tmp_path / "same.png")
    data = dataclasses.replace(DATA, apply_orientation=applied)
    trained = TrainedModel(colour_model(), NAMES, data)
    photograph, same = predict(trained, [tmp_path / "lying.jpg", tmp_path / "same.png"])
    assert photograph == same
    other = dataclasses.replace(
        trained, data=dataclasses.replace(data, apply_orientation=not applied)
    )
    assert predict(other, [tmp_path / "lying.jpg"]) != [photograph]
