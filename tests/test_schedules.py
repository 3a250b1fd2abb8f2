"""The learning rate schedule at its ends, in between, and as a part of an optimizer."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pit_keras.schedules import WarmUpCosine, WarmUpDrop, scaled_learning_rate

SETTINGS = {"peak": 5e-4, "steps": 300, "warmup_steps": 5, "start": 1e-6, "minimum": 1e-5}


def warmup_cosine(step, **settings):
    return WarmUpCosine(**settings)(step)


def warmup_drop(step, **settings):
    return WarmUpDrop(**settings)(step)


def rate(step, **changes):
    return float(warmup_cosine(step, **{**SETTINGS, **changes}))


def cosine(step):
    """The definition, in float64."""
    return 1e-5 + (5e-4 - 1e-5) * 0.5 * (1 + math.cos(math.pi * step / 300))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-6),
        (1, 1e-6 + (5e-4 - 1e-6) / 5),
        (4, 1e-6 + (5e-4 - 1e-6) * 4 / 5),
        (5, cosine(5)),  # not the base rate: the cosine is not shifted by the warm-up
        (150, (5e-4 + 1e-5) / 2),
        (299, cosine(299)),
        (300, 1e-5),
        (10_000, 1e-5),
    ],
)
def test_values(step, expected):
    # 1e-6 are eight roundings of float32, as many as there are operations.
    assert rate(step) == pytest.approx(expected, rel=1e-6)


def test_agrees_with_timm_at_the_starts_of_epochs():
    """Rates that timm 1.0's CosineLRScheduler gives for t_initial=300, warmup_t=5, per epoch."""
    timm = {0: 1e-6, 3: 3.004e-4, 5: 4.99664236e-4, 100: 3.775e-4, 200: 1.325e-4, 300: 1e-5}
    for epoch, expected in timm.items():
        per_step = rate(epoch * 40, steps=300 * 40, warmup_steps=5 * 40)
        assert per_step == pytest.approx(expected, rel=1e-6)


def test_without_a_warm_up_it_starts_at_the_base():
    assert rate(0, warmup_steps=0) == pytest.approx(5e-4)


def test_rises_through_the_warm_up_and_then_falls():
    rates = warmup_cosine(np.arange(301), **SETTINGS).numpy()
    assert rates.argmax() == 5
    assert (np.diff(rates[:6]) > 0).all()
    assert (np.diff(rates[5:]) < 0).all()


def test_a_base_below_the_minimum_is_never_exceeded():
    """5e-4 scaled to a batch of 8 is 7.8e-6, below the recipes' minimum of 1e-5."""
    base = scaled_learning_rate(5e-4, 8)
    rates = warmup_cosine(np.arange(301), **{**SETTINGS, "peak": base}).numpy()
    assert rates.max() == np.float32(base)
    np.testing.assert_array_equal(rates[5:], np.float32(base))
    assert rate(0, peak=1e-7) == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "step", [7, np.int64(7), np.array([7]), tf.constant(7), tf.Variable(7, dtype="int64")]
)
def test_takes_any_kind_of_step_and_gives_float32(step):
    value = warmup_cosine(step, **SETTINGS)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert value.shape == np.shape(step)
    np.testing.assert_allclose(value, cosine(7), rtol=1e-6)  # eight roundings, as above


def test_drives_an_optimizer():
    optimizer = keras.optimizers.SGD(WarmUpCosine(**SETTINGS))
    variable = keras.Variable(0.0)
    step = tf.function(lambda: optimizer.apply([tf.constant(-1.0)], [variable]), jit_compile=True)
    optimizer.build([variable])
    for _ in range(8):
        step()
    assert float(variable.value) == pytest.approx(sum(rate(i) for i in range(8)), rel=1e-5)


def test_config_round_trip():
    schedule = WarmUpCosine(**SETTINGS)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(loaded) is WarmUpCosine
    assert loaded.get_config() == SETTINGS
    assert float(loaded(77)) == rate(77)


def test_scaled_learning_rate():
    assert scaled_learning_rate(5e-4, 512) == 5e-4
    assert scaled_learning_rate(5e-4, 1024) == 1e-3
    assert scaled_learning_rate(5e-4, 32, scaled_from=64) == 2.5e-4
    assert scaled_learning_rate(1e-4, 7, scaled_from=None) == 1e-4


DROP = {"peak": 1e-4, "steps": 150, "warmup_steps": 10, "start": 1e-6, "drop_at": 2 / 3}


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1e-6), (5, 1e-6 + 0.99e-4 / 2), (10, 1e-4), (99, 1e-4), (100, 1e-5), (10_000, 1e-5)],
)
def test_the_drop_is_to_a_tenth_at_its_share_of_the_steps(step, expected):
    assert float(warmup_drop(step, **DROP)) == pytest.approx(expected, rel=1e-6)
    assert float(WarmUpDrop(**DROP)(step)) == float(warmup_drop(step, **DROP))


def test_the_drop_at_its_ends():
    assert float(warmup_drop(0, **{**DROP, "warmup_steps": 0})) == np.float32(1e-4)
    rates = warmup_drop(np.arange(150), **{**DROP, "warmup_steps": 0, "drop_at": 1.0}).numpy()
    np.testing.assert_array_equal(rates, np.float32(1e-4))
    assert float(warmup_drop(0, **{**DROP, "peak": 1e-7})) == np.float32(1e-7)  # never above


def test_the_drop_has_a_config():
    schedule = WarmUpDrop(**DROP)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert (type(loaded), loaded.get_config()) == (WarmUpDrop, DROP)
