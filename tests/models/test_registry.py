import keras
import pytest

import pit_keras
from pit_keras.models import variant_of

# Table 1 of the paper, and DeiT's table 1; counted exactly.
PARAMETERS = {
    "pit_b": 73_764_840,
    "pit_b_distilled": 74_790_096,
    "pit_s": 23_461_912,
    "pit_s_distilled": 24_039_056,
    "pit_ti": 4_847_272,
    "pit_ti_distilled": 5_104_336,
    "pit_xs": 10_618_888,
    "pit_xs_distilled": 11_003_984,
    "vit_b": 86_567_656,
    "vit_b_distilled": 87_338_192,
    "vit_s": 22_050_664,
    "vit_s_distilled": 22_436_432,
    "vit_ti": 5_717_416,
    "vit_ti_distilled": 5_910_800,
}


def small(name, **arguments):
    """A model on 32 x 32 images, quick to build."""
    overrides = {"patch_size": 4, "stride": 2 if name.startswith("pit") else 4}
    return pit_keras.create_model(
        name, **{"input_shape": (32, 32, 3), "classes": 10, **overrides, **arguments}
    )


def test_every_variant_is_listed():
    assert pit_keras.list_models() == sorted(PARAMETERS)
    assert pit_keras.list_models("pit_ti*") == ["pit_ti", "pit_ti_distilled"]
    assert pit_keras.list_models("resnet*") == []


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_counted_exactly(name):
    model = pit_keras.create_model(name)
    assert model.count_params() == PARAMETERS[name]
    assert sum(v.shape.num_elements() for v in model.trainable_variables) == PARAMETERS[name]
    assert isinstance(model, keras.Model)
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize(
    ("name", "size", "grids"),
    [
        ("pit_s", (224, 224), ((27, 27), (14, 14), (7, 7))),
        ("pit_b", (224, 224), ((31, 31), (16, 16), (8, 8))),
        ("pit_ti", (384, 224), ((47, 27), (24, 14), (12, 7))),
        ("vit_s", (224, 224), ((14, 14),)),
    ],
)
def test_grids(name, size, grids):
    assert variant_of(name).grids(size) == grids


def test_small_images_with_a_small_patch():
    model = small("pit_ti")
    maps = [model.get_layer(f"stage{stage}").output[1] for stage in (1, 2, 3)]
    assert [tuple(m.shape[1:]) for m in maps] == [(15, 15, 64), (8, 8, 128), (4, 4, 256)]


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"input_shape": (40, 24, 1)}, (None, 10)),
        ({"input_shape": (32, 32, 4), "classes": 1}, (None, 1)),
        ({"include_top": False}, (None, 256)),
        ({"heads": (1, 2, 2), "depths": (1, 1, 1), "head_dim": 8}, (None, 10)),
    ],
)
def test_any_size_channels_classes_and_overrides(arguments, shape):
    for name in ("pit_ti", "pit_ti_distilled"):
        assert small(name, **arguments).output_shape == shape


def test_classifier_activation():
    images = keras.random.normal((2, 32, 32, 3), seed=1)
    model = small("pit_ti_distilled", classifier_activation="softmax")
    logits = small("pit_ti_distilled")
    logits.set_weights(model.get_weights())
    expected = keras.ops.softmax(logits(images))
    assert keras.ops.all(keras.ops.isclose(model(images), expected, atol=1e-6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pit_keras.create_model("pit_l"), "Did you mean pit_.*Models are: pit_b, "),
        (lambda: pit_keras.create_model("efficientnet"), "Models are: pit_b, "),
        (lambda: small("pit_ti", dropout=0.1), "no argument 'dropout'; arguments are classes, "),
        (lambda: small("pit_ti", heads=(2, 4)), "heads of pit_ti must be 3 positive integers"),
        (lambda: small("pit_ti", heads=4), "heads of pit_ti must be 3 positive integers"),
        (lambda: small("pit_ti", patch_size=0), "patch_size of pit_ti must be a positive number"),
        (lambda: small("pit_ti", heads=(2, 3, 6)), "Stage 2 has 96 channels.*multiple of the 64"),
        (lambda: small("pit_ti", classes=0), "classes must be a positive integer"),
        (lambda: small("pit_ti", input_shape=(32, 32)), "three positive integers"),
        (lambda: small("pit_ti", drop_path_rate=1.0), r"drop_path_rate must lie in \[0, 1\)"),
        (
            lambda: small("pit_ti", input_shape=(3, 64, 3)),
            "3 x 64 pixels is smaller than one patch",
        ),
        (lambda: small("vit_ti", input_shape=(2, 2, 3)), "smaller than one patch of 4 x 4"),
        (
            lambda: small("pit_ti", input_shape=(6, 32, 3)),
            "6 x 32 pixels leaves stage 2 a grid of 1 x 8 tokens, which pooling cannot halve",
        ),
        (lambda: small("pit_ti", weights="imagenet"), "Unknown weights 'imagenet'"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_weights_file():
    with pytest.raises(FileNotFoundError, match=r"no weights file nowhere\.keras"):
        small("pit_ti", weights="nowhere.keras")


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    small("pit_ti", classes=7).save_weights(path)
    with pytest.raises(ValueError, match="do not fit pit_ti"):
        small("pit_ti", weights=path)


def test_weights_of_its_own(tmp_path):
    saved = small("pit_ti_distilled")
    for path in (tmp_path / "own.weights.h5", tmp_path / "own.keras"):
        saved.save_weights(path) if path.suffix == ".h5" else saved.save(path)
        loaded = small("pit_ti_distilled", weights=path)
        for a, b in zip(saved.get_weights(), loaded.get_weights(), strict=True):
            assert (a == b).all()
