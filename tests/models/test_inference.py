import keras
import numpy as np
import pytest
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.models.inference import logits_only


def small(name):
    overrides = {"depths": (1, 2, 1)} if name.startswith("pit") else {"depth": 2}
    settings = {"input_shape": (20, 28, 3), "classes": 10, "patch_size": 4, "head_dim": 8}
    model = pit_keras.create_model(name, **settings, stride=2, **overrides)
    # Larger than initial weights, so that attention is far from uniform.
    model.set_weights([3 * weight for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("pit_ti", "stage3_block1"),
        ("pit_ti_distilled", "stage3_block1"),
        ("vit_ti", "stage1_block2"),
        ("vit_ti_distilled", "stage1_block2"),
    ],
)
def test_the_logits_without_what_nobody_reads(name, last):
    model = small(name)
    images = np.random.default_rng(0).normal(size=(2, 20, 28, 3)).astype("float32")
    lean = logits_only(model)
    assert_close(lean(images), model(images), roundings=terms_along(model))
    assert lean.get_layer(last).output.shape[1] == (2 if "distilled" in name else 1)
    assert model.get_layer(last).output.shape[1] > 10  # the model itself is as it was
    assert {id(weight) for weight in lean.weights} == {id(weight) for weight in model.weights}
    assert (lean.name, lean.output_shape) == (model.name, model.output_shape)


def test_other_models_stay_as_they_are():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert logits_only(model) is model
    with pytest.raises(ValueError, match="logits_only reads functional models"):
        logits_only(keras.Sequential([keras.layers.Dense(2)]))
