"""Whole runs of other precisions, networks and strategies."""

import json

import keras
import numpy as np
import pytest
from whole_runs import eagerly, forget_last_epoch, rows, train

from pit_keras.config.fields import set_field
from pit_keras.create import create_model
from pit_keras.runs.run_folder import RunFolder

NETWORKS = {
    "pit_ti": {"model.depth": None, "model.depths": (1, 1, 1), "model.heads": (1, 2, 4)},
    "vit_ti": {"model.head_dim": 16},  # its weights begin much smaller than PiT's
    "resnet50": {
        "model.patch_size": None,
        "model.stride": None,
        "model.head_dim": None,
        "model.depth": None,
        "model.depths": (1, 1, 1, 1),
        "model.base_width": 4,
    },
}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "vit_ti",
            {
                "training.precision": "mixed_float16",
                "training.distribute": "mirrored",
                "training.jit": "on",
            },
        ),
        ("resnet50", {"optimizer.name": "adamw"}),  # it has many weights to trace AdamP for
        pytest.param("pit_ti", {"training.precision": "mixed_bfloat16"}, marks=pytest.mark.slow),
        pytest.param("pit_ti", {"training.jit": "on"}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_run_learns(name, values, make_tiny_config, tmp_path):
    config = make_tiny_config()
    config.model.name = name
    config.data.cutmix_alpha, config.data.flip, config.data.crop_scale = 0.0, False, (0.8, 1.0)
    config.optimizer.name, config.training.batch_size = "adamp", 18
    config.data.image_size = (20, 20)
    config.training.ema_decay, config.training.epochs = 0.0, 6 if name != "vit_ti" else 12
    for path, value in {**NETWORKS[name], **values}.items():
        set_field(config, path, value)
    try:
        _, results = train(config, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert not {"weights", "raw", "averaged"} & set(results)
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.9 * losses[0]
    model = keras.models.load_model(tmp_path / "model.keras")
    assert np.isfinite(model(np.zeros((1, 20, 20, 3), "float32"))).all()


@pytest.mark.parametrize("jit", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_fine_tuning_keeps_frozen_stages_and_carries_on_without_the_weights_file(
    jit, make_tiny_config, tmp_path
):
    """On a mirrored strategy, with layer-wise rates."""
    config, folder = make_tiny_config(), RunFolder(tmp_path / "run")
    config.training.epochs, config.optimizer.warmup_epochs = 2, 0.0
    config.training.batch_size, config.training.checkpoint_every_steps = 54, 1  # an epoch
    config.training.ema_decay = 0.0
    config.training.jit, config.training.distribute = jit, "mirrored"
    config.model.name = "pit_ti"
    for path, value in NETWORKS["pit_ti"].items():
        set_field(config, path, value)
    fields = ("patch_size", "stride", "head_dim", "depths", "heads")
    sizes = {name: getattr(config.model, name) for name in fields}
    start = create_model("pit_ti", classes=3, input_shape=(16, 16, 3), **sizes)
    weights = tmp_path / "start.weights.h5"
    start.save_weights(weights)
    config.model.weights, config.model.frozen_stages = str(weights), 2
    config.optimizer.layer_decay = 0.5

    with eagerly(jit == "off"):
        trainer, _ = train(config, folder.path)

    saved = keras.models.load_model(folder.model)
    assert all(layer.trainable for layer in saved.layers)
    changed = {
        layer.name
        for layer in saved.layers
        for a, b in zip(layer.weights, start.get_layer(layer.name).weights, strict=True)
        if not np.array_equal(a.numpy(), b.numpy())
    }
    assert changed == {"pooling2", "stage3_block1", "norm", "head"}

    history, results = rows(folder.path), json.loads(folder.results.read_text())
    forget_last_epoch(folder.path)
    weights.unlink()
    with eagerly(jit == "off"):
        again, _ = train(config, folder.path)

    assert rows(folder.path) == history
    assert json.loads(folder.results.read_text()) == results
    for a, b in zip(trainer.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
