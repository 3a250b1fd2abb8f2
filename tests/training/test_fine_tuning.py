import keras
import pytest

from pit_keras.create import create_model
from pit_keras.training.fine_tuning import freeze, trains_blocks


def tiny(name="pit_ti_distilled"):
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4}
    if name.startswith("pit"):
        sizes["depths"] = (1, 2, 1)
    return create_model(name, classes=3, input_shape=(24, 24, 3), **sizes)


def staged_network():
    """A convolutional network with BatchNormalization, its blocks spelled out layer by layer."""
    layers = keras.layers
    x = images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(x)
    for name in ("stage1_block1", "stage1_block2", "stage2_block1"):
        shortcut = layers.Conv2D(4, 1, name=f"{name}_shortcut")(x)
        x = layers.Conv2D(4, 3, padding="same", name=f"{name}_conv1")(x)
        x = layers.BatchNormalization(name=f"{name}_norm1")(x)
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(images, layers.Dense(3, name="head")(x), name="staged")


def trainable_layers(model):
    return [layer.name for layer in model.layers if layer.trainable_variables]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (1, ["pooling1", "stage2_block1", "stage2_block2", "pooling2", "stage3_block1"]),
        (2, ["pooling2", "stage3_block1"]),
        (3, []),
    ],
)
def test_frozen_stages_take_the_embedding_and_the_poolings_between_them(stages, expected):
    model = tiny("pit_ti")

    freeze(model, stages)

    assert trainable_layers(model) == [*expected, "norm", "head"]


def test_no_frozen_stages_change_nothing():
    model = tiny("pit_ti")
    before = trainable_layers(model)

    freeze(model, 0)

    assert trainable_layers(model) == before


def test_frozen_batch_normalisation_keeps_its_statistics():
    model = staged_network()

    freeze(model, 1)
    model(keras.random.normal((2, 8, 8, 3)), training=True)

    def mean(block):
        return model.get_layer(f"{block}_norm1").moving_mean.numpy()

    assert not mean("stage1_block2").any()
    assert mean("stage2_block1").any()
    trained = ("stage2_block1_conv1", "stage2_block1_norm1", "stage2_block1_shortcut", "head")
    assert sorted(trainable_layers(model)) == sorted(trained)


def test_more_stages_than_there_are():
    with pytest.raises(ValueError, match="pit_ti has 3 stages; 4 cannot"):
        freeze(tiny("pit_ti"), 4)


def test_models_without_blocks():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(ValueError, match="layer_decay and frozen_stages need blocks"):
        freeze(plain, 1)
    with pytest.raises(ValueError, match="layer_decay and frozen_stages need blocks"):
        trains_blocks(plain)


def test_whether_a_block_is_trained():
    model = tiny("pit_ti")
    freeze(model, 2)
    assert trains_blocks(model)
    freeze(model, 3)
    assert not trains_blocks(model)
