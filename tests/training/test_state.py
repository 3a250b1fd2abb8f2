import types

import keras
import numpy as np
import pytest

from pit_keras.config.fields import Config
from pit_keras.optimizers import AdamP
from pit_keras.training.averaging import WeightAverage
from pit_keras.training.state import Progress, TrainingState


def workers(count, replicas, is_chief=True):
    return types.SimpleNamespace(count=count, replicas=replicas, is_chief=is_chief)


def test_the_same_workers_go_on_where_each_was(capsys):
    progress = Progress(positions=[40, 44], epoch_positions=[20, 20], replicas=4)
    assert progress.for_workers(workers(2, 4)) == progress
    assert Progress().for_workers(workers(1, 1)).positions == [0]
    assert capsys.readouterr().out == ""


def test_other_workers_go_on_where_the_farthest_was(capsys):
    progress = Progress(positions=[40, 44], epoch_positions=[20, 21], replicas=4)
    moved = progress.for_workers(workers(3, 6))
    assert (moved.positions, moved.epoch_positions, moved.replicas) == ([44] * 3, [21] * 3, 6)
    assert "Resuming on 6 replicas instead of 4" in capsys.readouterr().out


def state(config=None, width=3, train_images=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(width)])
    optimizer = AdamP(1e-3)
    optimizer.build(model.trainable_variables)
    average = WeightAverage(model, 0.9)
    return model, TrainingState(config or Config(), model, optimizer, average, train_images)


def test_arrays_hold_everything_and_parts_of_it():
    _, kept = state()
    kept.progress.sums = {"loss": 0.1 + 0.2}
    arrays = kept.arrays()
    model, restored = state()
    model.set_weights([value + 1 for value in model.get_weights()])
    restored.restore(arrays)
    assert restored.progress == kept.progress
    again = restored.arrays()
    assert again.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(again[name], value)
    assert not [name for name in kept.arrays(parts=("model",)) if name.startswith("optimizer")]


def test_arrays_of_another_run_change_nothing():
    _, kept = state()
    for other, message in (
        (state(width=4)[1].arrays(), "model/0000 is not this run's"),
        ({**kept.arrays(), "progress": np.array("{}x")}, "its fields cannot be read"),
        ({**kept.arrays(), "progress": np.array('{"speed": 1}')}, "its fields cannot be read"),
        ({**kept.arrays(), "config": np.array("{")}, "its fields cannot be read"),
    ):
        model, restored = state()
        before = model.get_weights()
        with pytest.raises(ValueError, match=message):
            restored.restore(other)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert restored.progress == Progress()


def test_a_checkpoint_knows_the_run_it_is_of():
    config = Config()
    arrays = state()[1].arrays()
    config.training.log_every_steps = 7
    state(config)[1].restore(arrays)
    config.optimizer.learning_rate = 1.0
    with pytest.raises(ValueError, match=r"optimizer.learning_rate is 0\.0005 there and 1\.0 here"):
        state(config)[1].restore(arrays)


def test_a_checkpoint_knows_how_many_images_it_was_begun_on():
    of_nine, of_unknown = state(train_images=9)[1].arrays(), state()[1].arrays()
    _, restored = state(train_images=9)
    restored.restore(of_nine)
    restored.restore(of_unknown)
    assert restored.progress.train_images == 9
    with pytest.raises(ValueError, match="it has 9 training images, the data 8"):
        state(train_images=8)[1].restore(of_nine)
