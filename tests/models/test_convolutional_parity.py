"""Numbers equal to timm's networks on the same weights (tests/golden/make_convolutional.py), with
BatchNorm's statistics from the checkpoint and from the batch.
"""

import pathlib

import keras
import numpy as np
import pytest
from fixed_weights import fixed_images, fixed_state_dict, sampled
from tolerances import assert_close, random_walk, terms_along

import pit_keras

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden/convolutional.npz")
NETWORKS = {
    "resnet50": ("resnet50", {}),
    "resnet50_output_stride_16": ("resnet50", {"output_stride": 16}),
    "regnety_160": ("regnety_160", {}),
}


@pytest.mark.parametrize("golden_name", NETWORKS)
def test_logits_and_stages_equal_the_reference(golden_name):
    name, arguments = NETWORKS[golden_name]
    images = fixed_images(97, 64)
    lines = [line.split() for line in GOLDEN[f"{golden_name}/keys"]]
    model = pit_keras.create_model(name, input_shape=images.shape[1:], **arguments)
    pit_keras.load_pytorch_weights(
        model, fixed_state_dict({key: tuple(map(int, shape)) for key, *shape in lines})
    )
    stages = [model.get_layer(f"stage{stage}").output for stage in (1, 2, 3, 4)]
    both = keras.Model(model.input, [model.output, *stages])

    for mode in ("inference", "training"):
        logits, *maps = (np.asarray(o) for o in both(images, training=mode == "training"))

        roundings = random_walk(terms_along(model, len(images) if mode == "training" else None))
        assert_close(logits, GOLDEN[f"{golden_name}/{mode}/logits"], roundings=roundings)
        for stage, feature_map in enumerate(maps, 1):
            expected = GOLDEN[f"{golden_name}/{mode}/stage{stage}"]
            assert_close(sampled(feature_map), expected, roundings=roundings)
