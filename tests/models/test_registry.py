import math

import keras
import numpy as np
import pytest
from shapes_only import shapes_only

import pit_keras
from pit_keras.config.model_names import MODEL_NAMES
from pit_keras.models import registry, variant_of
from pit_keras.models.attention import TransformerBlock

# Table 1 of the paper, and DeiT's table 1; counted exactly. The convolutional networks' are counted
# in test_resnet.py, test_regnet.py and test_applications.py.
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
CONVOLUTIONAL = [
    *(f"efficientnet_b{size}" for size in range(6)),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *("regnety_160", "resnet101", "resnet152", "resnet50", "resnet50_no_pooling"),
]
DETECTORS = ["detr_pit_s", "detr_resnet50", "detr_vit_s"]  # counted in test_detr.py


def small(name, **arguments):
    """A model on 32 x 32 images, quick to build."""
    sizes = (
        {"stride": 2, "depths": (1, 1, 1)} if name.startswith("pit") else {"stride": 4, "depth": 1}
    )
    settings = {"input_shape": (32, 32, 3), "classes": 10, "patch_size": 4}
    return pit_keras.create_model(name, **{**settings, **sizes, **arguments})


def test_every_variant_is_listed():
    assert set(registry._MODELS) == set(MODEL_NAMES)
    assert pit_keras.list_models() == sorted([*DETECTORS, *PARAMETERS, *CONVOLUTIONAL])
    assert pit_keras.list_models("pit_ti*") == ["pit_ti", "pit_ti_distilled"]
    assert pit_keras.list_models("resnet50*") == ["resnet50", "resnet50_no_pooling"]
    assert pit_keras.list_models("alexnet*") == []


# Heads of each stage: the numbers that a network computes depend on them, and no count does.
HEADS = {
    **{"pit_ti": (2, 4, 8), "pit_xs": (2, 4, 8), "pit_s": (3, 6, 12), "pit_b": (4, 8, 16)},
    **{"vit_ti": (3,), "vit_s": (6,), "vit_b": (12,)},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_heads_are_counted_exactly(name):
    model = shapes_only(name)
    assert model.count_params() == PARAMETERS[name]
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == PARAMETERS[name]
    assert isinstance(model, keras.Model)
    assert model.output_shape == (None, 1000)
    blocks = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    for stage, heads in enumerate(HEADS[name.removesuffix("_distilled")], 1):
        in_stage = [block for block in blocks if block.name.startswith(f"stage{stage}_")]
        assert {block.num_heads for block in in_stage} == {heads}


@pytest.mark.parametrize(
    ("name", "size", "grids"),
    [
        ("pit_s", (224, 224), ((27, 27), (14, 14), (7, 7))),
        ("pit_b", (224, 224), ((31, 31), (16, 16), (8, 8))),
        ("pit_ti", (384, 224), ((47, 27), (24, 14), (12, 7))),
        ("vit_s", (224, 224), ((14, 14),)),
        ("detr_pit_s", (400, 600), ((49, 74), (25, 37), (25, 37))),
        ("detr_vit_s", (400, 600), ((25, 37),)),
        ("detr_resnet50", (400, 600), ((100, 150), (50, 75), (25, 38), (25, 38))),
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


@pytest.mark.parametrize("name", ["pit_ti_distilled", "vit_ti", "detr_vit_s", "mobilenet_v2"])
def test_a_model_may_have_a_name_of_its_own(name):
    arguments = {"input_shape": (32, 32, 3), "classes": 5}
    keras.utils.set_random_seed(0)
    model = pit_keras.create_model(name, **arguments)
    keras.utils.set_random_seed(0)

    named = pit_keras.create_model(name, **arguments, name="mine")

    assert (model.name, named.name) == (name, "mine")
    images = np.ones((1, 32, 32, 3), "float32")
    for expected, actual in zip(
        *map(keras.tree.flatten, (model(images), named(images))), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def test_numpys_numbers_are_numbers():
    model = small(
        "pit_ti",
        classes=np.int64(7),
        input_shape=[np.int32(32), 24, np.uint8(3)],
        patch_size=np.int64(4),
        depths=[np.int64(1)] * 3,
        drop_rate=np.float32(0.5),
        mlp_ratio=2,
    )

    assert (model.input_shape, model.output_shape) == ((None, 32, 24, 3), (None, 7))
    assert keras.models.model_from_json(model.to_json()).count_params() == model.count_params()


def test_classifier_activation():
    images = keras.random.normal((2, 32, 32, 3), seed=1)
    model = small("pit_ti_distilled", classifier_activation="softmax")
    logits = small("pit_ti_distilled")
    logits.set_weights(model.get_weights())
    expected = keras.ops.softmax(logits(images))
    np.testing.assert_array_equal(model(images), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pit_keras.create_model("pit_l"), "Did you mean pit_.*Models are: detr_"),
        (lambda: pit_keras.create_model("vgg"), r"Unknown model 'vgg'\. Models are: detr_"),
        (lambda: pit_keras.create_model("PiT-S"), r"'PiT-S'\. Did you mean pit_s\? Models are: "),
        (lambda: pit_keras.create_model(50), "Unknown model 50"),
        (lambda: small("pit_ti", dropout=0.1), "no argument 'dropout'.*Arguments are: classes, "),
        (lambda: small("pit_ti", num_classes=5), r"'num_classes'\. Did you mean classes\? Arg"),
        (lambda: small("pit_ti", drop_path=0.1), r"'drop_path'\. Did you mean drop_path_rate\? "),
        (lambda: small("pit_ti", heads=(2, 4)), r"heads of pit_ti must be like \(2, 4, 8\); got "),
        (lambda: small("pit_ti", heads=4), r"heads of pit_ti must be like \(2, 4, 8\); got "),
        (lambda: small("pit_ti", depths=(1, 0, 1)), r"depths of pit_ti must be like \(2, 6, 4\)"),
        (
            lambda: small("pit_ti", depths=(1, True, 1)),
            r"depths of pit_ti must be like \(2, 6, 4\)",
        ),
        (lambda: small("pit_ti", patch_size=0), "patch_size of pit_ti must be like 16; got 0"),
        (lambda: small("pit_ti", patch_size="4"), "patch_size of pit_ti must be like 16; got '4'"),
        (lambda: small("pit_ti", head_dim=10**7), "head_dim of pit_ti must be at most 16384"),
        (lambda: small("vit_ti", head_dim=5000, depth=16_000), "43,200,000,000,000 parameters in"),
        (lambda: small("pit_ti", input_shape=(4096, 4096, 3)), "4,190,209 tokens for 4096 x 4096"),
        (lambda: small("pit_ti", head_dim=10**4), "width, head_dim x heads, of pit_ti must be at"),
        (lambda: small("pit_ti", classes=10**12), "classes of pit_ti must be at most 1048576"),
        (lambda: small("pit_ti", input_shape=(32, 10**6, 3)), r"input_shape .* at most 16384; got"),
        (lambda: pit_keras.create_model("detr_pit_s", queries=10**9), "queries of .* at most 16"),
        (lambda: small("pit_ti", heads=(2, 3, 6)), "Stage 2 has 96 channels.*multiple of the 64"),
        (lambda: small("pit_ti", input_shape=(32, 32)), r"input_shape must be \(height, width, ch"),
        (lambda: small("pit_ti", input_shape=224), "may be None; got 224"),
        (lambda: small("pit_ti", input_shape=None), "may be None; got None"),
        (lambda: small("pit_ti", input_shape="224"), "may be None; got '224'"),
        (
            lambda: small("pit_ti", input_shape=(3, 64, 3)),
            "3 x 64 pixels is smaller than one patch",
        ),
        (lambda: small("vit_ti", input_shape=(2, 2, 3)), "smaller than one patch of 4 x 4"),
        (
            lambda: small("pit_ti", input_shape=(6, 32, 3)),
            "6 x 32 pixels leaves stage 2 a grid of 1 x 8 tokens, which pooling cannot halve",
        ),
        (
            lambda: small("pit_ti", weights="imagnet"),
            "Unknown weights 'imagnet'; give 'imagenet', or",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "argument",
    [
        {"classes": 0},
        *({"mlp_ratio": 1e-6}, {"mlp_ratio": -1.0}, {"drop_rate": 1.5}, {"drop_path_rate": -0.1}),
        {"attention_drop_rate": math.nan},
    ],
    ids=repr,
)
def test_numbers_that_layers_cannot_have_are_refused_by_keras(argument):
    with pytest.raises(ValueError, match=r"[Rr]eceived|value"):
        small("pit_ti", **argument)


@pytest.mark.parametrize("name", ["pit_ti", "vit_ti", "resnet50", "regnety_160", "mobilenet_v2"])
def test_without_the_top_there_is_no_activation(name):
    with pytest.raises(ValueError, match=r"classifier_activation .* be None; got 'softmax'\.$"):
        pit_keras.create_model(name, include_top=False, classifier_activation="softmax")


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_only_what_has_a_distilled_form_takes_weights_across_distillation(name):
    with pytest.raises(ValueError, match=f"must be False for {name}, which has no distilled form"):
        pit_keras.create_model(name, weights="imagenet", weights_across_distillation=True)


@pytest.mark.parametrize("weights", [5, True, [], b"x", np.zeros(2)], ids=repr)
def test_weights_of_no_known_form_are_refused(weights):
    with pytest.raises(ValueError, match=r"^weights must be None, 'imagenet', or the path of a "):
        small("pit_ti", weights=weights)


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
