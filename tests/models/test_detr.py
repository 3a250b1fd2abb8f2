import math

import forked
import keras
import numpy as np
import pytest
from detectors import BACKBONES, HEAD
from shapes_only import shapes_only
from tolerances import assert_close, random_walk, terms_along

import pit_keras
from pit_keras.models import backbone_layers, is_detector, masked_detector
from pit_keras.models.detr import decoded, heads
from pit_keras.weights.loading import NewHeadsWarning

# The ViT's is more of the same.
MOST_BACKBONES = ["detr_pit_s", "detr_resnet50", pytest.param("detr_vit_s", marks=pytest.mark.slow)]


def small(name, input_shape=(32, 48, 3), **arguments):
    return pit_keras.create_model(
        name, **{"input_shape": input_shape, **BACKBONES[name], **HEAD, **arguments}
    )


def images(*shape):
    return np.random.default_rng(5).normal(size=shape).astype("float32")


# What table 4 counts, in millions. ResNet50's are without those that DETR does not train: its stem,
# its first stage and all scales and offsets of batch normalisation.
@pytest.mark.parametrize(
    ("name", "parameters", "table4"),
    [
        ("detr_pit_s", 40_576_784, 40.6),
        ("detr_vit_s", 39_308_768, 39.3),
        ("detr_resnet50", 41_577_888, 41.3),
    ],
)
def test_parameters_equal_table_4(name, parameters, table4):
    model = shapes_only(name, classes=91, input_shape=(224, 224, 3))
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == parameters
    if name == "detr_resnet50":
        parameters -= sum(
            math.prod(variable.shape)
            for layer in backbone_layers(model)
            for variable in layer.trainable_variables
            if isinstance(layer, keras.layers.BatchNormalization)
            or layer.name.startswith(("stem", "stage1"))
        )
    assert round(parameters / 1e6, 1) == table4


@pytest.mark.parametrize("name", BACKBONES)
def test_the_feature_map_has_stride_16(name):
    model = shapes_only(name, classes=91, input_shape=(400, 592, 3))
    height, width = model.get_layer("input_projection").input.shape[1:3]
    # The overlapping patches of PiT leave half a patch at each border.
    assert (height, width) == (25, 37)


@pytest.mark.parametrize("name", MOST_BACKBONES)
def test_outputs_at_any_size_and_after_loading_in_a_fresh_process(name, tmp_path):
    model = small(name, input_shape=(None, None, 3))
    x = images(2, 40, 56, 3)
    found = model(x)
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "logits": (2, 10, 4),
        "boxes": (2, 10, 4),
    }
    assert ((found["boxes"] > 0) & (found["boxes"] < 1)).numpy().all()
    np.save(tmp_path / "images.npy", x)
    model.save(tmp_path / "model.keras")
    script = (
        "import keras, numpy, pit_keras\n"
        "model = keras.models.load_model('model.keras')\n"
        "numpy.savez('found.npz', **model(numpy.load('images.npy')))\n"
    )
    forked.run_code(script, tmp_path).check_returncode()
    loaded = np.load(tmp_path / "found.npz")
    for key, value in found.items():
        np.testing.assert_array_equal(loaded[key], value)


@pytest.mark.parametrize("name", MOST_BACKBONES)
def test_gradients_reach_every_weight(name):
    import tensorflow as tf

    model = masked_detector(small(name, dropout=0.0))
    drawn = np.random.default_rng(3)
    for variable in model.trainable_variables:  # biases begin at zero and would hide what they feed
        variable.assign(variable + 0.2 * drawn.normal(size=variable.shape))
    inputs = {"images": images(2, 32, 48, 3), "padding_mask": np.zeros((2, 32, 48), bool)}
    with tf.GradientTape() as tape:
        found = model(inputs, training=True)
        loss = tf.reduce_sum(found["logits"] ** 2) + tf.reduce_sum(found["boxes"] ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    rounding = 1e-6 * max(np.abs(g).max() for g in gradients if g is not None)
    silent = {
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.abs(gradient).max() > rounding
    }
    # Softmax does not see what is added to all keys. The first layer's objects are zeros: whichever
    # of them attention looks at, their values are the same.
    assert {path for path in silent if not path.endswith("key/bias")} == {
        f"decoder_layer1/self_attention/{part}"
        for part in ("query/kernel", "query/bias", "key/kernel", "value/kernel")
    }


def test_masked_detector_gives_every_layer_and_ends_in_the_detectors_own_answer():
    model = small("detr_vit_s", input_shape=(None, None, 3))
    x = images(2, 32, 48, 3)
    found = masked_detector(model)({"images": x, "padding_mask": np.zeros((2, 32, 48), bool)})
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "logits": (2, 2, 10, 4),
        "boxes": (2, 2, 10, 4),
    }
    roundings = terms_along(small("detr_vit_s"))
    for key, value in model(x).items():
        assert_close(found[key][:, -1], value, roundings=roundings)


def test_padding_is_not_looked_at():
    """With a backbone that sees only its own patch, padding changes nothing but by being there."""
    model = small("detr_resnet50", input_shape=(None, None, 3))
    masked = masked_detector(model)
    mask = np.zeros((1, 32, 48), bool)
    mask[:, 16:] = mask[:, :, 32:] = True
    features = model.get_layer("input_projection").input
    extractor = keras.Model(model.input, features)
    x = images(1, 32, 48, 3)
    inside = ~masked.get_layer("feature_padding")(mask, extractor(x)).numpy()
    assert inside.sum() == (16 // 8) * (32 // 8)
    assert inside[0, :2, :4].all()

    parts = {layer.name: layer for layer in model.layers}
    feature_map, padding = keras.Input((None, None, 16)), keras.Input((None, None), dtype="bool")
    of_layers = decoded(feature_map, parts, 1, 2, padding)
    rest = keras.Model(
        [feature_map, padding], [heads(objects, parts)["boxes"] for objects in of_layers]
    )
    whole = images(1, 4, 6, 16)
    changed = np.where(inside[..., None], whole, 100.0)
    cropped, nothing = whole[:, :2, :4], np.zeros((1, 2, 4), bool)
    roundings = terms_along(small("detr_resnet50"))
    for layer, expected in enumerate(rest([whole, ~inside])):
        assert_close(rest([changed, ~inside])[layer], expected, roundings=roundings)
        assert_close(rest([cropped, nothing])[layer], expected, roundings=roundings)


@pytest.mark.parametrize("name", MOST_BACKBONES)
def test_weights_of_a_classifier_become_the_backbones(name, tmp_path):
    backbone = name.removeprefix("detr_")
    classifier = pit_keras.create_model(
        backbone, input_shape=(64, 64, 3), classes=7, **BACKBONES[name]
    )
    classifier.save(tmp_path / "classifier.keras")
    model = small(name, weights=str(tmp_path / "classifier.keras"))
    theirs = {v.path: v for v in classifier.weights}
    carried = [v for layer in backbone_layers(model) for v in layer.weights]
    same = [v for v in carried if v.path != "position_embedding/position_embedding"]
    assert len(carried) - len(same) == (backbone != "resnet50")
    for variable in same:
        np.testing.assert_array_equal(variable.numpy(), theirs[variable.path].numpy())


def test_weights_of_a_detector_are_the_whole(tmp_path):
    first = small("detr_pit_s")
    first.save(tmp_path / "detector.keras")
    second = small("detr_pit_s", weights=str(tmp_path / "detector.keras"))
    for ours, theirs in zip(second.weights, first.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(ValueError, match=r"does not fit pit_s: .*It is a detector's checkpoint\.$"):
        pit_keras.create_model(
            "pit_s",
            input_shape=(32, 48, 3),
            weights=str(tmp_path / "detector.keras"),
            **BACKBONES["detr_pit_s"],
        )


def test_weights_of_a_detector_of_other_classes_go_without_its_class_head(tmp_path):
    first = small("detr_vit_s")
    first.save(tmp_path / "detector.keras")
    classes = first.output["logits"].shape[-1] - 1
    expected = f"they are for {classes} classes and the model has {classes + 4}: train them"
    with pytest.warns(NewHeadsWarning, match=expected):
        second = small("detr_vit_s", classes=classes + 4, weights=tmp_path / "detector.keras")
    theirs = {variable.path: variable.numpy() for variable in first.weights}
    for variable in second.weights:
        if not variable.path.startswith("class_head/"):
            np.testing.assert_array_equal(variable.numpy(), theirs[variable.path])
    assert second.get_layer("class_head").bias.shape == (classes + 5,)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"include_top": False}, "include_top of detr_pit_s must be True"),
        ({"classifier_activation": "softmax"}, "classifier_activation of detr_pit_s must be None"),
        ({"hidden_width": 18}, "hidden_width of detr_pit_s must be a multiple of 4"),
        ({"base_width": 8}, "create_model.'detr_pit_s'. has no argument 'base_width'.*queries.*"),
        ({"depths": (1, 1)}, r"depths of pit_s must be like \(2, 6, 4\); got \(1, 1\)"),
        ({"output_stride": 5}, "output_stride must be 16, or 8"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        small("detr_pit_s", **arguments)


def test_only_detectors_are_detectors():
    classifier = pit_keras.create_model(
        "pit_ti", input_shape=(32, 32, 3), patch_size=4, stride=4, depths=(1, 1, 1)
    )
    assert is_detector(small("detr_vit_s"))
    assert not is_detector(classifier)
    for function in (masked_detector, backbone_layers):
        with pytest.raises(ValueError, match="pit_ti is not a detector such as detr_pit_s"):
            function(classifier)
    with pytest.raises(ValueError, match="reads functional models"):
        masked_detector("detr_pit_s")


def test_features_are_normalised_where_that_is_asked_for():
    model = small("detr_pit_s", normalize_features=True)
    norm = model.get_layer("feature_norm")
    assert norm not in backbone_layers(model)
    features = keras.Model(model.input, norm.output)(images(1, 32, 48, 3)).numpy()
    # A mean over 16 channels, of numbers whose own mean was taken away with as many roundings.
    means = features.mean(axis=-1)
    assert_close(means, np.zeros(means.shape), roundings=2 * 16, scale=features.max())


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_answers_are_float32_in_every_precision(precision):
    expected = small("detr_vit_s")
    keras.config.set_dtype_policy(precision)
    try:
        model = small("detr_vit_s")
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(expected.get_weights())
    x = images(2, 32, 48, 3)
    for key, value in model(x).items():
        assert value.dtype == "float32"
        # Roundings of the backbone's block, the encoder's and the decoder's three.
        half = precision.removeprefix("mixed_")
        assert_close(value, expected(x)[key], roundings=random_walk(4 * 16), dtype=half)
