"""A detector's task: its loss over replicas and parts, what is frozen, its learning rates."""

import json
import pathlib

import detection_runs
import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from detection_runs import Classes, small
from steps import path_of
from tolerances import assert_close
from whole_runs import eagerly

from pit_keras.training.assembly import optimizer_of
from pit_keras.training.detection_task import DetectionLoss, DetectionTask


def test_accumulated_batches_do_what_one_large_batch_does():
    batches, strategy = [detection_runs.batch(4)], tf.distribute.OneDeviceStrategy("CPU:0")
    config, model = small(training__batch_size=4)
    with eagerly():
        (whole,), _ = detection_runs.gradients_of_steps(config, model, strategy, batches)
    config, model = small(training__batch_size=2, training__accumulate=2)
    (parts,), _ = detection_runs.gradients_of_steps(config, model, strategy, batches)
    for name, value in whole[0].items():
        assert_close(parts[0][name], value, roundings=path_of(model))
    # The biases of keys have no gradient but rounding: a softmax does not see them.
    scale = max(np.abs(gradient).max() for gradient in whole[1])
    for ours, theirs in zip(parts[1], whole[1], strict=True):
        assert_close(ours, theirs, roundings=path_of(model), scale=scale)


def test_a_step_gives_the_same_bits_each_time():
    config, model = small(model__decoder_layers=4)
    loss, batch = DetectionLoss(config, model), detection_runs.batch(4)

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            total = loss(batch, {}, loss.totals(batch))["loss"]
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    with DetectionTask(config, Classes).graph_options():
        first = [gradient.numpy() for gradient in gradients() if gradient is not None]
        for _ in range(30):
            for gradient, expected in zip(
                (g for g in gradients() if g is not None), first, strict=True
            ):
                np.testing.assert_array_equal(gradient, expected)
    assert "arithmetic_optimization" in tf.config.optimizer.get_experimental_options()
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"]


def test_more_objects_than_queries_are_told(caplog):
    config = detection_runs.make_config()
    DetectionTask(config, Classes)
    assert "has 11 objects, but the model finds at most 10" in caplog.text
    caplog.clear()
    config.model.queries = 11
    DetectionTask(config, Classes)
    assert not caplog.text


def test_two_replicas_do_what_one_does_and_new_sizes_are_not_traced():
    process = forked.run_script(pathlib.Path(__file__).parent / "several_devices_detecting.py")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    roundings = path_of(small()[1])
    for step in found["steps"]:
        for name, value in step["expected"].items():
            assert_close(step["metrics"][name], value, roundings=roundings)
        assert_close(step["gap"], 0, roundings=roundings, scale=step["size"])
    assert found["traces"] == 2  # of the first size, and of any


def test_batch_normalization_is_frozen_exactly_where_there_are_weights():
    config, model = small("detr_resnet50")
    norms = [x.name for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for values, is_frozen in (
        ({}, False),
        ({"model__weights": "imagenet"}, True),
        ({"model__weights": "imagenet", "detection__freeze_norms": False}, False),
    ):
        for path, value in values.items():
            section, name = path.split("__")
            setattr(getattr(config, section), name, value)
        for layer in model.layers:
            layer.trainable = True
        DetectionTask(config, Classes).freeze(model)
        assert {model.get_layer(name).trainable for name in norms} == {not is_frozen}
        assert model.get_layer("input_projection").trainable


def test_the_stem_and_the_first_stages_are_frozen():
    config, model = small("detr_resnet50")
    config.model.weights, config.model.frozen_stages = "imagenet", 1
    DetectionTask(config, Classes).freeze(model)
    trained = {layer.name for layer in model.layers if layer.trainable_weights}
    assert not any(name.startswith(("stem", "stage1")) for name in trained)
    assert {"input_projection", "class_head", "decoder_layer1"} <= trained
    assert any(name.startswith("stage2_block1") for name in trained)


@pytest.mark.parametrize("batch_size", [8, 64])
def test_rates_are_detrs_whatever_the_batch(batch_size):
    config, model = small("detr_pit_s", training__batch_size=batch_size)
    config.optimizer.learning_rate = 1e-4
    scales = DetectionTask(config, Classes).learning_rate_scales(model)
    optimizer = optimizer_of(config, model, steps=3, scales=scales)
    rates = {
        variable.path.split("/")[0]: scale * float(optimizer.learning_rate)
        for variable, scale in zip(model.trainable_variables, optimizer._scales, strict=True)
    }
    slow = {name for name, rate in rates.items() if rate == pytest.approx(1e-5)}
    fast = {name for name, rate in rates.items() if rate == pytest.approx(1e-4)}
    assert slow | fast == set(rates)
    assert {"stage1_block1", "stage2_block1", "pooling1"} <= slow
    assert {"input_projection", "encoder_layer1", "class_head", "object_queries"} <= fast
    assert all(optimizer._use_weight_decay(variable) for variable in model.trainable_variables)
    assert float(optimizer.learning_rate) == np.float32(1e-4)
