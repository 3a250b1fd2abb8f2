"""Which epoch is kept, and when a run ends for want of a better one."""

import pytest
from whole_runs import checkpoints, rows, trainer_of

from pit_keras.runs.metric_names import CLASSIFICATION, DETECTION
from pit_keras.training.interruption import TrainingInterrupted
from pit_keras.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("eager_functions")


class Scripted(Trainer):
    """Its evaluations have given pairs of top-1 and loss, one an epoch."""

    script = ()
    stops_after = None

    def _evaluate(self, can_stop=False):
        epoch = min(self.state.progress.epoch, len(self.script) - 1)
        top1, loss = self.script[epoch]
        return {**super()._evaluate(can_stop), "top1": top1, "loss": loss}

    def _train_epoch(self, batches):
        if self.state.progress.epoch == self.stops_after:
            raise TrainingInterrupted
        super()._train_epoch(batches)


@pytest.fixture
def run(make_tiny_config, tmp_path):
    def trained(script, epochs=None, stops_after=None, **settings):
        config = make_tiny_config()
        config.training.ema_decay = 0.0
        config.training.epochs = epochs or len(script)
        for name, value in settings.items():
            setattr(config.training, name, value)
        trainer = trainer_of(config, tmp_path / "run", Scripted)
        trainer.script, trainer.stops_after = script, stops_after
        return trainer

    return trained


@pytest.mark.parametrize(
    ("metric", "kept"),
    [(None, 3), ("top1", 3), ("loss", 4)],
)
def test_of_equal_epochs_the_one_of_the_lowest_loss_is_kept(metric, kept, run):
    script = [(0.5, 0.9), (0.75, 0.8), (0.75, 0.4), (0.5, 0.3), (0.75, 0.6)]
    assert run(script, best_metric=metric).run()["best_epoch"] == kept


def test_there_is_no_top_five_of_five_classes_or_fewer(run, tmp_path):
    with pytest.raises(ValueError, match=r"best_metric=top5 needs more than five .* has 3; take"):
        run([(0.5, 0.9)] * 2, best_metric="top5")
    assert "top5" not in run([(0.5, 0.9)] * 2).run()
    assert "val_top5" not in rows(tmp_path / "run")[0]


def test_a_run_ends_when_no_epoch_was_better_for_the_patience(run, tmp_path):
    script = [(0.5, 0.9), (0.75, 0.8), (0.5, 0.3), (0.75, 0.8)]
    results = run(script, epochs=6, patience=2).run()
    assert (results["epochs"], results["best_epoch"], len(rows(tmp_path / "run"))) == (4, 2, 4)
    assert checkpoints(tmp_path / "run")[-1].stem == "step-00000008"
    again = run(script, epochs=6, patience=2)
    assert again.is_finished
    assert again.run() == results


def test_patience_goes_on_where_an_interrupted_run_was(run):
    script = [(0.75, 0.8), (0.5, 0.9), (0.5, 0.9), (0.9, 0.1)]
    with pytest.raises(TrainingInterrupted):
        run(script, patience=2, stops_after=2).run()
    assert run(script, patience=2).run()["epochs"] == 3


def test_what_is_no_number_is_never_better():
    nothing = CLASSIFICATION.rank({"top1": 0.5, "loss": float("nan")}, "loss")
    assert nothing < CLASSIFICATION.rank({"top1": 0.0, "loss": 9.0}, "loss")
    assert DETECTION.rank({"AP": None, "AP50": None}, "AP50") == [0.0, 0.0]


@pytest.mark.parametrize(("earlier", "best"), [(-1.0, []), (0.75, [0.75])])
def test_a_checkpoint_of_an_earlier_version_has_one_number_for_the_best(
    earlier, best, make_tiny_config, tmp_path
):
    trainer = trainer_of(make_tiny_config(), tmp_path / "run")
    arrays = trainer.state.arrays()
    trainer.state.progress.best = earlier
    arrays["progress"] = trainer.state.arrays()["progress"]
    trainer.state.restore(arrays)
    assert trainer.state.progress.best == best
    assert best < CLASSIFICATION.rank({"top1": 0.75, "loss": 0.5})
