import keras
import numpy as np
import pytest
import tensorflow as tf
from tolerances import assert_close

from pit_keras.training.averaging import WeightAverage, decay_after


def network():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(momentum=0.5)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.weights])
    return model


def test_the_decay_warms_up_to_its_end():
    expected = {0: 0.1, 1: 2 / 11, 90: 0.91, 899_989: 0.99999, 10**7: 0.99999}
    for updates, decay in expected.items():
        assert float(decay_after(updates, 0.99999)) == pytest.approx(decay, rel=1e-6)
    assert float(decay_after(50, 0.0)) == 0.0


def test_all_weights_and_statistics_are_averaged():
    model, strategy = network(), tf.distribute.get_strategy()
    average = WeightAverage(model, 0.9)
    expected = model.get_weights()
    step = tf.function(lambda updates: average.update(updates, strategy), autograph=False)
    for updates in range(12):
        model(np.random.default_rng(updates).normal(size=(8, 3)), training=True)
        for weight in model.trainable_weights:
            weight.assign(weight + 0.1)
        step(tf.constant(updates))
        decay = min(0.9, (1 + updates) / (10 + updates))
        expected = [
            decay * old + (1 - decay) * new.numpy()
            for old, new in zip(expected, model.weights, strict=True)
        ]
    assert len(average.variables) == len(model.weights) == 6
    for variable, value in zip(average.variables, expected, strict=True):
        # Twelve times a difference, a product and a difference with a rounded factor.
        assert_close(variable, value, roundings=12 * 4)


def fail_after(lent, model):
    lent.append(model.get_weights())
    raise ZeroDivisionError


def test_an_average_lends_its_values_and_takes_them_back_even_after_an_error():
    model = network()
    average = WeightAverage(model, 0.9)
    for variable in average.variables:
        variable.assign(variable * 0 + 7.0)
    before = model.get_weights()
    lent = []
    with pytest.raises(ZeroDivisionError), average.in_place():
        fail_after(lent, model)
    assert all((value == 7.0).all() for value in lent[0])
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
