"""AdamP against the golden trajectory of the authors' PyTorch optimizer, and as a Keras citizen."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.create import create_model
from pit_keras.optimizers import (
    AdamP,
    AdamW,
    decays,
    depth_factors,
    output_channel_axes,
    project,
)

GOLDEN = pathlib.Path(__file__).parent / "golden" / "adamp.npz"
PATHS = {
    "conv": "conv/kernel",
    "depthwise": "pool_depthwise/kernel",
    "dense": "dense/kernel",
    "bias": "dense/bias",
    "position_embedding": "patches/position_embedding",
    "class_tokens": "patches/class_tokens",
}


def to_keras(name, array):
    """A tensor of the golden file, in PyTorch's layout, as Keras lays it out."""
    if name == "conv":  # (out, in, h, w) -> (h, w, in, out)
        return array.transpose(2, 3, 1, 0)
    if name == "depthwise":  # (channels * 2, 1, h, w) -> (h, w, channels, 2)
        return array.reshape(-1, 2, *array.shape[2:]).transpose(2, 3, 0, 1)
    if name == "dense":  # (out, in) -> (in, out)
        return array.T
    if name == "position_embedding":  # (1, C, H, W) -> (1, H, W, C)
        return array.transpose(0, 2, 3, 1)
    return array


def make_variable(path, value, dtype="float32"):
    layer, name = path.split("/")
    with keras.name_scope(layer):
        return keras.Variable(value, name=name, dtype=dtype)


EXACT = {"beta_1": 0.875, "beta_2": 0.96875, "weight_decay": 0.25, "epsilon": 1e-14}


def assert_close_in_float64(actual, expected):
    """Far from the rounding, and from any fault. Keras takes learning rates, and its own optimizers
    betas and weight decay, through float32: they must be such as it holds.
    """
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def replay(golden, apply):
    """Runs the golden gradients through `apply(optimizer, gradients)`; the weights per step."""
    variables = [make_variable(p, to_keras(n, golden[f"{n}/start"])) for n, p in PATHS.items()]
    optimizer = AdamP(learning_rate=1.0, weight_decay=0.05)
    optimizer.build(variables)
    trajectory = {name: [] for name in PATHS}
    for step, learning_rate in enumerate(golden["learning_rates"]):
        optimizer.learning_rate = learning_rate
        apply(
            optimizer,
            [tf.constant(to_keras(n, golden[f"{n}/gradients"][step])) for n in PATHS],
        )
        for name, variable in zip(PATHS, variables, strict=True):
            trajectory[name].append(variable.numpy())
    return trajectory


def assert_follows(golden, trajectory):
    """Compares whole trajectories.

    Both sides are float32 and order their sums differently: the moments, the projection and the
    update each round at 6e-8, and the errors of 12 steps add up. 1e-5 is some ten times what that
    comes to; a wrong view, or a decay not scaled, is off by 1e-3 at least. The absolute part is for
    weights that pass close to zero, on the scale of the steps, 1e-3 to 5e-2.
    """
    for name, weights in trajectory.items():
        for step, weight in enumerate(weights):
            expected = to_keras(name, golden[f"{name}/weights"][step])
            np.testing.assert_allclose(
                weight, expected, rtol=1e-5, atol=1e-6, err_msg=f"{name}, step {step}"
            )


def test_golden_trajectory_eager(golden):
    assert_follows(golden, replay(golden, lambda optimizer, gradients: optimizer.apply(gradients)))


# Without XLA it is in a function below.
@pytest.mark.parametrize("jit_compile", [pytest.param(False, marks=pytest.mark.slow), True])
def test_golden_trajectory_in_a_function(golden, jit_compile):
    functions = {}

    def apply(optimizer, gradients):
        if optimizer not in functions:
            functions[optimizer] = tf.function(
                optimizer.apply, jit_compile=jit_compile, autograph=False
            )
        functions[optimizer](gradients)

    assert_follows(golden, replay(golden, apply))


def test_golden_trajectory_under_mirrored_strategy(golden):
    """Replicas sum their gradients, so each of them brings its share."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    functions = {}

    def apply(optimizer, gradients):
        def apply_on_a_replica(gradients):
            optimizer.apply([g / strategy.num_replicas_in_sync for g in gradients])

        if optimizer not in functions:
            functions[optimizer] = tf.function(
                lambda gradients: strategy.run(apply_on_a_replica, args=(gradients,)),
                autograph=False,
            )
        functions[optimizer](gradients)

    with strategy.scope():
        assert_follows(golden, replay(golden, apply))


def test_decisions_of_the_golden_trajectory(golden):
    """Every tensor takes the reference's decision at every step, whichever it is."""
    for name, path in PATHS.items():
        if name == "bias":
            continue
        weights = np.concatenate([golden[f"{name}/start"][None], golden[f"{name}/weights"][:-1]])
        for weight, gradient, view in zip(
            weights, golden[f"{name}/gradients"], golden[f"{name}/views"], strict=True
        ):
            weight, gradient = to_keras(name, weight), to_keras(name, gradient)
            axes = output_channel_axes(path, weight.shape)
            projected, radial = project(
                tf.constant(gradient), tf.constant(weight), tf.constant(gradient), axes, 0.1, 1e-8
            )
            assert bool(projected) == (view > 0)
            rows = np.prod([weight.shape[axis] for axis in axes])
            varies = np.ptp(radial.numpy()) > 0
            assert varies == (view == 1 and rows > 1)


@pytest.mark.parametrize(("factor", "expected"), [(0.95, True), (1.05, False)])
@pytest.mark.parametrize("view", ["channel", "layer"])
def test_threshold(view, factor, expected):
    """delta / sqrt(row length): 48 rows of 3 in the channel view, one of 144 in the layer view."""
    rng = np.random.default_rng(0)
    weight, gradient = rng.normal(size=(2, 3, 48))
    weight /= np.linalg.norm(weight, axis=0)
    gradient -= (gradient * weight).sum(axis=0) * weight
    gradient /= np.linalg.norm(gradient, axis=0)
    delta, row_length = (0.2, 3) if view == "channel" else (0.2, 144)
    gradient += factor * delta / np.sqrt(row_length) * weight  # all rows have this cosine, nearly
    if view == "layer":  # far from orthogonal row by row, without a change to the whole
        gradient += np.where(np.arange(48) % 2, 3.0, -3.0) * weight
        gradient *= np.sqrt(48) / np.linalg.norm(gradient)
        gradient += (factor * delta / 12 - (gradient * weight).sum() / 48) * weight
    projected, _ = project(
        *(tf.constant(x, "float32") for x in (gradient, weight, gradient)), (1,), delta, 1e-8
    )
    assert bool(projected) == expected


@pytest.mark.parametrize(
    ("path", "shape", "axes"),
    [
        ("pit_s/patches/conv/kernel", (16, 16, 3, 144), (3,)),
        ("pit_s/block/qkv/kernel", (144, 432), (1,)),
        ("pit_s/pool_depthwise/kernel", (3, 3, 144, 2), (2, 3)),
        ("pit_s/pool1_dwconv/kernel", (3, 3, 144, 2), (2, 3)),
        ("separable/depthwise_kernel", (3, 3, 8, 1), (2, 3)),
        ("separable/pointwise_kernel", (1, 1, 8, 16), (3,)),
        ("depthwise_stage/dense/kernel", (8, 16), (1,)),
        ("mixer_dwconv/kernel", (8, 16), (1,)),
        ("pit_s/patches/position_embedding", (1, 27, 27, 144), (0,)),
        ("pit_s/patches/class_tokens", (1, 2, 144), (0,)),
        ("embedding/embeddings", (100, 8), (0,)),
        ("kernel", (8, 16), (1,)),
        ("dense/bias", (16,), (0,)),
        ("temperature", (), ()),
    ],
)
def test_output_channel_axes(path, shape, axes):
    assert output_channel_axes(path, shape) == axes


def test_output_channel_axes_of_keras_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name="stem"),
            keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="pool_dwconv"),
            keras.layers.Dense(5, name="head"),
        ]
    )
    axes = {v.path.split("/")[-2]: output_channel_axes(v.path, v.shape) for v in model.weights[::2]}
    assert axes == {"stem": (3,), "pool_dwconv": (2, 3), "head": (1,)}


def test_what_decays():
    variables = [
        make_variable("norm/gamma", np.ones(4)),
        make_variable("dense/kernel", np.ones((4, 2))),
        make_variable("dense/bias", np.ones(2)),
        make_variable("patches/position_embedding", np.ones((1, 2, 2, 4))),
        make_variable("patches/class_tokens", np.ones((1, 1, 4))),
        make_variable("head/temperature", np.ones(())),
        make_variable("embedding/embeddings", np.ones((3, 4))),
    ]
    assert {v.path for v in variables if decays(v)} == {"dense/kernel", "embedding/embeddings"}


@pytest.mark.parametrize("decay_all", [True, False])
def test_weight_decay_is_applied_once_and_not_to_excluded_variables(decay_all):
    """Zero gradients leave the decay alone; they are orthogonal to all weights, hence wd_ratio."""
    names = ("projected/kernel", "vector/bias", "excluded/kernel", "pattern/spared")
    values = (np.ones((2, 3)), np.ones(3), np.ones((2, 3)), np.ones((2, 3)))
    variables = [make_variable(n, v) for n, v in zip(names, values, strict=True)]
    optimizer = AdamP(learning_rate=0.5, weight_decay=0.1, wd_ratio=0.2, decay_all=decay_all)
    optimizer.exclude_from_weight_decay(var_list=[variables[2]], var_names=["spared"])
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
    expected = (1 - 0.5 * 0.1 * 0.2, 1 - 0.5 * 0.1 if decay_all else 1.0, 1.0, 1.0)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), np.full(variable.shape, value), rtol=1e-6)


def test_delta_zero_is_adam_with_decoupled_decay():
    start = np.random.default_rng(0).normal(size=(4, 5))
    gradients = np.random.default_rng(1).normal(size=(3, 4, 5))
    variables = [make_variable(f"{name}/kernel", start, "float64") for name in "ab"]
    optimizers = [
        AdamP(learning_rate=0.125, delta=0.0, **EXACT),
        keras.optimizers.AdamW(learning_rate=0.125, **EXACT),
    ]
    for gradient in gradients:
        for optimizer, variable in zip(optimizers, variables, strict=True):
            optimizer.apply([tf.constant(gradient)], [variable])
    assert_close_in_float64(variables[0], variables[1])


def test_adamw_is_keras_own_with_a_rate_for_each_variable():
    start = np.random.default_rng(0).normal(size=(4, 5))
    ours = [make_variable(f"{name}/kernel", start, "float64") for name in "ab"]
    theirs = [make_variable(f"{name}/kernel", start, "float64") for name in "cd"]
    optimizer = AdamW(learning_rate=0.125, **EXACT)
    optimizer.scale_learning_rates([(ours[1], 0.25)])
    rates = (0.125, 0.125 * 0.25)
    others = [keras.optimizers.AdamW(learning_rate=rate, **EXACT) for rate in rates]
    optimizer.build(ours)
    for gradient in np.random.default_rng(1).normal(size=(8, 4, 5)):
        optimizer.apply([tf.constant(gradient)] * 2, ours)
        for other, variable in zip(others, theirs, strict=True):
            other.apply([tf.constant(gradient)], [variable])
    for variable, expected in zip(ours, theirs, strict=True):
        assert_close_in_float64(variable, expected)


def test_adamw_never_projects():
    """The decay of a weight whose gradient is orthogonal to it is whole."""
    variable = make_variable("a/kernel", np.ones((2, 3)))
    AdamW(learning_rate=0.5, weight_decay=0.1).apply([tf.zeros((2, 3))], [variable])
    np.testing.assert_allclose(variable.numpy(), np.full((2, 3), 0.95), rtol=1e-6)


def test_no_weight_decay_may_be_none_as_in_keras():
    variable = make_variable("a/kernel", np.ones((2, 3)))
    AdamP(learning_rate=0.5, weight_decay=None).apply([tf.zeros((2, 3))], [variable])
    np.testing.assert_array_equal(variable.numpy(), np.ones((2, 3)))


def test_adamw_has_a_config():
    optimizer = AdamW(learning_rate=0.1, weight_decay=0.3, beta_2=0.95)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(loaded) is AdamW
    assert loaded.get_config() == optimizer.get_config()


def test_the_first_step_keeps_its_precision():
    """Adam's first step is the learning rate, but for epsilon, whatever the gradient."""
    variable = make_variable("norm/gamma", np.zeros(3))
    AdamP(learning_rate=1.0).apply([tf.constant([0.3, -7.0, 50.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-1, 1, -1], rtol=1e-6)


def test_nesterov_looks_ahead():
    """With an epsilon large enough to see that it is added after the bias correction."""
    gradients = np.array([[1.0, 2.0], [3.0, -1.0]])
    variable = make_variable("norm/gamma", np.zeros(2), "float64")
    optimizer = AdamP(learning_rate=0.125, epsilon=0.1, nesterov=True)
    first, second, expected = np.zeros(2), np.zeros(2), np.zeros(2)
    for step, gradient in enumerate(gradients, start=1):
        optimizer.apply([tf.constant(gradient)], [variable])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**step)) + 0.1
        expected -= 0.125 / (1 - 0.9**step) * (0.9 * first + 0.1 * gradient) / root
    assert_close_in_float64(variable, expected)


def test_loss_scaling_unscales_and_skips():
    start, gradient = np.ones((2, 3)), np.arange(6.0).reshape(2, 3) + 1
    plain, scaled = make_variable("a/kernel", start), make_variable("b/kernel", start)
    AdamP(learning_rate=0.1).apply([tf.constant(gradient, "float32")], [plain])
    optimizer = keras.optimizers.LossScaleOptimizer(AdamP(learning_rate=0.1), initial_scale=8.0)
    optimizer.build([scaled])
    apply = tf.function(lambda g: optimizer.apply([g]), jit_compile=True, autograph=False)
    apply(tf.constant(gradient * np.inf, "float32"))
    np.testing.assert_array_equal(scaled.numpy(), start)
    apply(tf.constant(gradient * 4, "float32"))  # the scale was halved
    np.testing.assert_allclose(scaled.numpy(), plain.numpy(), rtol=1e-6)


def test_half_precision_variables_are_updated_in_float32():
    """float16 cannot hold epsilon: a zero gradient would be zero by zero."""
    variable = keras.Variable(np.ones((2, 2)), name="kernel", dtype="float16")
    AdamP(learning_rate=0.5).apply([tf.constant([[0.0, 0.0], [1.0, -1.0]], "float16")], [variable])
    assert variable.dtype == "float16"
    np.testing.assert_allclose(variable.numpy()[:1], 1.0, atol=0.51)
    assert np.isfinite(variable.numpy()).all()


def scaled_pairs(scales):
    """An optimizer with factors for two kernels and a bias, and one alone for each of them."""
    rng = np.random.default_rng(3)
    starts = [rng.normal(size=shape) for shape in ((4, 5), (4, 5), (5,))]
    names = ("a/kernel", "b/kernel", "b/bias")
    settings = {"weight_decay": 0.3, "wd_ratio": 0.5}
    together = [make_variable(n, v, "float64") for n, v in zip(names, starts, strict=True)]
    optimizer = AdamP(learning_rate=0.125, **settings)
    optimizer.scale_learning_rates(zip(together, scales, strict=True))
    alone = [make_variable(n, v, "float64") for n, v in zip(names, starts, strict=True)]
    others = [AdamP(learning_rate=0.125 * scale, **settings) for scale in scales]
    return optimizer, together, others, alone


def test_a_scaled_rate_is_that_of_an_optimizer_of_its_own():
    """Step and decay both: as two parameter groups of PyTorch."""
    optimizer, together, others, alone = scaled_pairs((0.25, 1.0, 0.5))
    optimizer.build(together)
    apply = tf.function(
        lambda *gradients: optimizer.apply(list(gradients)), jit_compile=True, autograph=False
    )

    for step in range(5):
        gradients = [
            tf.constant(np.random.default_rng([step, i]).normal(size=v.shape))
            for i, v in enumerate(together)
        ]
        apply(*gradients)
        for other, gradient, variable in zip(others, gradients, alone, strict=True):
            other.apply([gradient], [variable])

    for scaled, variable in zip(together, alone, strict=True):
        assert_close_in_float64(scaled, variable)


def test_a_scale_of_one_changes_no_bit():
    gradients = [tf.constant(np.random.default_rng(9).normal(size=(4, 5)), "float32")]
    plain, scaled = (make_variable("a/kernel", np.ones((4, 5))) for _ in range(2))
    optimizers = [AdamP(learning_rate=0.1, weight_decay=0.3) for _ in range(2)]
    optimizers[1].scale_learning_rates([(scaled, 1.0)])
    for _ in range(3):
        optimizers[0].apply(gradients, [plain])
        optimizers[1].apply(gradients, [scaled])
    np.testing.assert_array_equal(plain.numpy(), scaled.numpy())


def test_scaled_rates_under_mirrored_strategy_and_loss_scaling():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        plain, scaled = (make_variable(f"{name}/bias", np.zeros(3)) for name in "ab")
        inner = AdamP(learning_rate=1.0)
        inner.scale_learning_rates([(scaled, 0.125)])
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
        optimizer.build([plain, scaled])
    gradient = tf.constant([1.0, -2.0, 3.0])
    step = tf.function(
        lambda: strategy.run(lambda: optimizer.apply([gradient, gradient], [plain, scaled])),
        autograph=False,
    )
    step()
    np.testing.assert_allclose(plain.numpy(), [-1, 1, -1], rtol=1e-6)
    np.testing.assert_allclose(scaled.numpy(), [-0.125, 0.125, -0.125], rtol=1e-6)


def test_scales_come_before_the_optimizer_is_built():
    variable = make_variable("a/bias", np.ones(3))
    optimizer = AdamP()
    optimizer.build([variable])
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.scale_learning_rates([(variable, 0.5)])


def test_gradient_accumulation_decays_once_per_update():
    start, gradient = np.ones((2, 3)), tf.constant([[1.0, 2, 3], [4, 5, 6]])
    plain, accumulated = make_variable("a/kernel", start), make_variable("b/kernel", start)
    AdamP(learning_rate=0.1, weight_decay=0.5).apply([gradient], [plain])
    optimizer = AdamP(learning_rate=0.1, weight_decay=0.5, gradient_accumulation_steps=2)
    optimizer.apply([gradient * 0.5], [accumulated])
    np.testing.assert_array_equal(accumulated.numpy(), start)
    optimizer.apply([gradient * 1.5], [accumulated])
    np.testing.assert_allclose(accumulated.numpy(), plain.numpy(), rtol=1e-6)


def test_saved_and_loaded_with_a_model(tmp_path):
    arguments = {
        "learning_rate": 0.25,
        "beta_1": 0.8,
        "beta_2": 0.9,
        "epsilon": 1e-5,
        "weight_decay": 0.03,
        "delta": 0.2,
        "wd_ratio": 0.5,
        "nesterov": True,
        "decay_all": True,
        "global_clipnorm": 2.0,
    }
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(AdamP(**arguments), "mse", jit_compile=False)
    model.train_on_batch(np.ones((4, 3)), np.zeros((4, 2)))
    model.save(tmp_path / "model.keras")
    optimizer = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert type(optimizer) is AdamP
    assert optimizer.get_config().items() >= arguments.items()
    for saved, loaded in zip(model.optimizer.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(saved.numpy(), loaded.numpy())


def test_checkpointed_and_restored(tmp_path):
    variable = make_variable("a/kernel", np.ones((2, 3)))
    optimizers = [AdamP(learning_rate=0.1), AdamP(learning_rate=0.1)]
    optimizers[0].apply([tf.ones((2, 3))], [variable])
    path = tf.train.Checkpoint(optimizer=optimizers[0]).save(str(tmp_path / "checkpoint"))
    optimizers[1].build([variable])
    tf.train.Checkpoint(optimizer=optimizers[1]).restore(path).assert_existing_objects_matched()
    for saved, restored in zip(optimizers[0].variables, optimizers[1].variables, strict=True):
        np.testing.assert_array_equal(saved.numpy(), restored.numpy())


def test_the_decay_by_layer_is_saved_and_acts_on_every_backend_alike():
    """As factors of their own do, which the golden values hold to PyTorch's parameter groups."""
    model, twin = (digit_classifier() for _ in range(2))
    twin.set_weights(model.get_weights())
    variables = model.trainable_variables
    factors = depth_factors(variables, 0.5)
    by_layer = dict(zip([v.path.split("/")[0] for v in variables], factors, strict=True))
    assert by_layer == {
        **dict.fromkeys(("patch_embedding", "position_embedding", "class_tokens"), 0.5**5),
        **dict.fromkeys(("stage1_block1", "pooling1"), 0.5**4),
        "stage2_block1": 0.5**3,
        **dict.fromkeys(("stage2_block2", "pooling2"), 0.5**2),
        "stage3_block1": 0.5,
        **dict.fromkeys(("norm", "head", "head_dist"), 1.0),
    }
    optimizer = AdamP.from_config(AdamP(0.1, weight_decay=0.3, layer_decay=0.5).get_config())
    other = AdamP(0.1, weight_decay=0.3)
    other.scale_learning_rates(zip(twin.trainable_variables, factors, strict=True))
    for each, network in ((optimizer, model), (other, twin)):
        gradients = [keras.ops.ones(v.shape) for v in network.trainable_variables]
        each.apply(gradients, network.trainable_variables)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def digit_classifier():
    sizes = {"patch_size": 4, "stride": 4, "head_dim": 4, "depths": (1, 2, 1)}
    return create_model("pit_ti_distilled", classes=3, input_shape=(24, 24, 3), **sizes)


def test_depths_of_a_vit_and_of_frozen_parts():
    """What is frozen changes no factor of what is trained."""
    sizes = {"patch_size": 4, "head_dim": 4}
    model = create_model("vit_ti", classes=3, input_shape=(24, 24, 3), **sizes)
    variables = model.trainable_variables
    whole = {v.path: f for v, f in zip(variables, depth_factors(variables, 0.5), strict=True)}
    assert whole["stage1_block12/mlp/expand/kernel"] == 0.5
    assert whole["stage1_block1/mlp/expand/kernel"] == 0.5**12
    assert whole["patch_embedding/kernel"] == 0.5**13
    for layer in model.layers[:5]:
        layer.trainable = False
    variables = model.trainable_variables
    assert 0 < len(variables) < len(whole)
    factors = zip(variables, depth_factors(variables, 0.5), strict=True)
    assert all(whole[v.path] == factor for v, factor in factors)


def test_depths_of_a_network_of_plain_layers():
    """A block is several layers, and a shortcut may come after the next block's first layer."""
    parts = ("stage1_block1_conv1", "stage1_block2_conv1", "stage1_block1_shortcut")
    names = ("stem", *parts, "stage2_block1_conv1", "head")
    variables = [make_variable(f"{name}/kernel", np.ones((2, 2))) for name in names]
    assert depth_factors(variables, 0.5) == [0.5**4, 0.5**3, 0.5**2, 0.5**2, 0.5, 1.0]


def test_a_decay_by_layer_needs_blocks():
    with pytest.raises(ValueError, match="layer_decay needs trainable blocks"):
        AdamP(layer_decay=0.5).build([make_variable("dense/kernel", np.ones((2, 2)))])
