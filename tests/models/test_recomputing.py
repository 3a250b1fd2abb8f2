"""Gradients with blocks that are computed again against those with kept activations."""

import gc
import json
import pathlib
import weakref

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.models import check_can_recompute, recomputing_blocks

BATCH, SIDE = 4, 16
SMALL = {
    "pit_ti": {"patch_size": 4, "stride": 2, "head_dim": 4, "depths": (1, 1, 1)},
    "pit_ti_distilled": {"patch_size": 4, "stride": 2, "head_dim": 4, "depths": (1, 1, 1)},
    "vit_ti": {"patch_size": 4, "stride": 4, "head_dim": 4, "depth": 1},
}
EAGER, GRAPH, XLA = "eager", "graph", "xla"


def small(name, **arguments):
    """A small model that drops out everything it can; always with the same weights and seeds."""
    keras.utils.set_random_seed(0)
    rates = {"drop_rate": 0.2, "attention_drop_rate": 0.2, "drop_path_rate": 0.5}
    settings = {"input_shape": (SIDE, SIDE, 3), "classes": 5, **SMALL[name], **rates}
    return pit_keras.create_model(name, **{**settings, **arguments})


def images():
    return np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, 3)).astype("float32")


def seed_states(model):
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def loss_of(model, inputs):
    logits = ops.cast(model(inputs, training=True), "float32")
    return ops.mean(logits**2)


def gradients(model, recompute, mode=EAGER, shift=None, inputs=None):
    """Gradients of all weights, and the states of the seed generators afterwards.

    With a shift the states are given by a scope, moved by so much; without, they are the model's.
    """
    states = seed_states(model)
    assert states

    def step(inputs):
        with recomputing_blocks(recompute), tf.GradientTape() as tape:
            if shift is None:
                loss, after = loss_of(model, inputs), [ops.copy(state.value) for state in states]
            else:
                given = [(state, ops.copy(state.value) + shift) for state in states]
                with keras.StatelessScope(state_mapping=given) as scope:
                    loss = loss_of(model, inputs)
                after = [scope.get_current_value(state) for state in states]
        return tape.gradient(loss, model.trainable_variables), after

    if mode != EAGER:
        step = tf.function(step, jit_compile=mode == XLA, autograph=False)
    values, after = step(tf.constant(images() if inputs is None else inputs))
    return [np.array(value) for value in values], [np.array(state) for state in after]


def assert_same(actual, expected, model=None):
    """To the bit; or, where TensorFlow fuses other operations, to the roundings there and back."""
    for a, b in zip(actual, expected, strict=True):
        assert np.abs(b).max() > 0
        assert_close(a, b, roundings=2 * terms_along(model) if model else 0)


@pytest.mark.parametrize(
    ("name", "mode", "shift"),
    [
        ("pit_ti_distilled", EAGER, 3),
        ("vit_ti", GRAPH, None),
        pytest.param("pit_ti", EAGER, None, marks=pytest.mark.slow),
    ],
)
def test_gradients_and_seeds_are_those_of_kept_activations(name, mode, shift):
    model = small(name)
    before = [state.numpy() for state in seed_states(model)]
    expected, _ = gradients(small(name), False, mode, shift)
    actual, states = gradients(model, True, mode, shift)
    assert_same(actual, expected, None if mode == EAGER else model)
    drawn_once = np.array([0, 1])
    for old, new in zip(before, states, strict=True):
        np.testing.assert_array_equal(new, old + (shift or 0) + drawn_once)
    for old, state in zip(before, seed_states(model), strict=True):
        moved = drawn_once if shift is None else 0  # a scope leaves the model's own states alone
        np.testing.assert_array_equal(state.numpy(), old + moved)


def test_other_seeds_give_other_gradients():
    model = small("vit_ti")
    first, second, third = (gradients(model, True, shift=shift)[0] for shift in (0, 1, 0))
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(a, c)
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()


def test_gradients_for_xla():
    # XLA takes long to compile, each draw above all.
    whole = small("vit_ti", drop_rate=0.0)
    block = whole.get_layer("stage1_block1")
    tokens = keras.Input(block.input.shape[1:])
    model = keras.Model(tokens, block(tokens))
    inputs = np.random.default_rng(0).normal(size=(BATCH, *tokens.shape[1:])).astype("float32")
    expected, _ = gradients(model, False, XLA, shift=3, inputs=inputs)
    actual, _ = gradients(model, True, XLA, shift=3, inputs=inputs)
    assert_same(actual, expected, whole)


def test_images_of_any_size():
    model = small("pit_ti_distilled", input_shape=(None, None, 3))
    expected, _ = gradients(model, False, shift=3)
    actual, _ = gradients(model, True, shift=3)
    assert_same(actual, expected)


def test_the_second_computation_has_the_precision_of_the_first():
    policy = keras.config.dtype_policy()
    full, _ = gradients(small("vit_ti"), False)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        expected, _ = gradients(small("vit_ti"), False)
        actual, _ = gradients(small("vit_ti"), True)
    finally:
        keras.config.set_dtype_policy(policy)
    assert_same(actual, expected)
    with pytest.raises(AssertionError):
        assert_same(actual, full, small("vit_ti"))


def test_a_tape_around_a_function_of_its_own():
    def around(recompute):
        model = small("vit_ti")

        @tf.function(autograph=False)
        def forward(inputs):
            with recomputing_blocks(recompute):
                return loss_of(model, inputs)

        with tf.GradientTape() as tape:
            loss = forward(tf.constant(images()))
        return [np.array(value) for value in tape.gradient(loss, model.trainable_variables)]

    assert_same(around(True), around(False), small("vit_ti"))


@pytest.mark.parametrize(("training", "recompute"), [(True, True), (True, False), (False, True)])
def test_each_block_is_computed_twice_while_training(training, recompute):
    model = small("vit_ti")

    @tf.function(autograph=False)
    def step(inputs):
        with recomputing_blocks(recompute), tf.GradientTape() as tape:
            loss = ops.mean(model(inputs, training=training) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    operations = step.get_concrete_function(tf.constant(images())).graph.get_operations()
    times = 2 if training and recompute else 1
    for kind in ("Erf", "Softmax"):
        assert sum(op.type == kind for op in operations) == times * SMALL["vit_ti"]["depth"]


@pytest.mark.parametrize("recompute", [True, False])
def test_activations_are_not_kept_for_the_gradient(recompute):
    model = small("vit_ti")
    hidden = []

    def watched(x):
        x = x + 1
        hidden.append(weakref.ref(x))
        return x

    blocks = [layer for layer in model.layers if hasattr(layer, "mlp")]
    for block in blocks:
        block.mlp.expand.activation = watched
    with recomputing_blocks(recompute), tf.GradientTape() as tape:
        loss = loss_of(model, images())
    gc.collect()
    assert len(hidden) == len(blocks)
    assert [tensor() is None for tensor in hidden] == [recompute] * len(blocks)
    assert None not in tape.gradient(loss, model.trainable_variables)
    assert len(hidden) == len(blocks) * (2 if recompute else 1)


def test_only_models_with_blocks_can_be_recomputed():
    check_can_recompute(small("pit_ti"))
    check_can_recompute(small("vit_ti"))
    resnet = pit_keras.create_model(
        "resnet50", classes=5, input_shape=(32, 32, 3), base_width=4, depths=(1, 1, 1, 1)
    )
    with pytest.raises(ValueError, match="no transformer blocks"):
        check_can_recompute(resnet)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with recomputing_blocks(False):
        pass
    with pytest.raises(ValueError, match=r"TensorFlow only.*'jax'"), recomputing_blocks():
        pass


TWO_DEVICES = """
import json, sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, FOLDER)
import keras
import numpy as np
from pit_keras.models import recomputing_blocks
from test_recomputing import images, loss_of, seed_states, small

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = small("vit_ti")
states = seed_states(model)


def gradients(recompute):
    def replica_step(inputs):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seeds = [(state, tf.stack([tf.cast(replica, state.dtype), i]))
                 for i, state in enumerate(states)]
        with recomputing_blocks(recompute), tf.GradientTape() as tape:
            with keras.StatelessScope(state_mapping=seeds):
                loss = loss_of(model, inputs)
        return tape.gradient(loss, model.trainable_variables)

    @tf.function(autograph=False)
    def step(inputs):
        return strategy.run(replica_step, args=(inputs,))

    values = [strategy.experimental_local_results(value) for value in step(tf.constant(images()))]
    return [[np.array(part) for part in parts] for parts in values]


pairs = list(zip(gradients(False), gradients(True)))
gaps = [float(np.abs(a - b).max() / np.abs(a).max()) for kept, again in pairs
        for a, b in zip(kept, again)]
between = [float(np.abs(a - b).max() / np.abs(a).max()) for (a, b), _ in pairs]
print(json.dumps({"count": len(gaps), "gap": max(gaps), "between": min(between)}))
"""


def test_each_of_two_replicas_has_its_own_seeds_again():
    """In a process of its own, for its devices."""
    folder = str(pathlib.Path(__file__).parent)
    process = forked.run_code(f"FOLDER = {folder!r}\n{TWO_DEVICES}")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    model = small("vit_ti")
    assert found["count"] == 2 * len(model.trainable_variables)
    assert found["gap"] <= 2 * terms_along(model) * np.finfo("float32").eps  # there and back
    assert found["between"] > 1e-3
