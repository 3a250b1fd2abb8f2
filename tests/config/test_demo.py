"""The tiny runs of the notebooks."""

import pit_keras
from pit_keras.config.demo import digits_config, scenes_config
from pit_keras.config.fields import validate


def test_it_is_a_valid_configuration_of_the_size_it_says():
    config = digits_config(epochs=3)
    validate(config)
    assert config.training.epochs == 3
    model = pit_keras.create_model(
        config.model.name,
        classes=10,
        input_shape=(*config.data.image_size, 3),
        **config.model.overrides,
    )
    assert f"{model.count_params():,}" in digits_config.__doc__


def test_so_is_the_detectors():
    config = scenes_config("coco:PATH", epochs=3)
    validate(config)
    assert (config.training.epochs, config.data.dataset) == (3, "coco:PATH")
    model = pit_keras.create_model(
        config.model.name,
        classes=10,
        input_shape=(*config.data.image_size, 3),
        **config.model.overrides,
    )
    assert f"{round(model.count_params(), -4):,}" in scenes_config.__doc__
