import argparse
import pathlib
import warnings

import keras
import pytest

from pit_keras import cli
from pit_keras.commands import predict
from pit_keras.errors import exit_with_one_sentence, visible
from pit_keras.evaluation.classification import Evaluator
from pit_keras.evaluation.detection import DetectionEvaluator
from pit_keras.explain.interaction import measure_interaction
from pit_keras.export.exporting import export
from pit_keras.serving.served_networks import KerasNetwork
from pit_keras.training.trainer import Trainer


@pytest.mark.parametrize(
    ("what", "use"),
    [
        ("Training", lambda: Trainer(None, None, "never")),
        ("Evaluation", lambda: Evaluator(None)),
        ("Evaluation", lambda: DetectionEvaluator(None, None)),
        ("Measuring interaction", lambda: measure_interaction(None, None)),
        ("Exporting", lambda: export(None, "never", compare_on=None)),
        ("Serving", lambda: KerasNetwork(None)),
    ],
)
def test_what_needs_tensorflow_says_so_first(what, use, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=f"^{what} needs Keras' TensorFlow backend, .* on jax"):
        use()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2J\rb\n", r"a\x1b[2J\rb\n"),
        ("\x9b2J \u202etxt.exe\u2028", r"\x9b2J \u202etxt.exe\u2028"),
        ("Größe 猫 👩\u200d🔬", "Größe 猫 👩\u200d🔬"),
    ],
)
def test_text_of_strangers_commands_no_terminal(text, shown):
    assert visible(text) == shown


def test_errors_and_warnings_and_predictions_show_it(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended, exit_with_one_sentence():
        raise ValueError("no \x1b[2J\nhere")
    assert ended.value.code == "error: no \\x1b[2J here"
    with cli._warnings_in_one_sentence():
        assert warnings.formatwarning("a\x1b\nb", None, None, None) == "a\\x1b\nb\n"
    found = [[("red\x1b[2J", 0.9)]]
    monkeypatch.setattr("pit_keras.runs.trained_model.predict", lambda *_: found)
    options = argparse.Namespace(explain=None, output=None, top=1)
    predict._classify(options, None, [pathlib.Path("a\r.png")])
    assert capsys.readouterr().out == "a\\r.png: red\\x1b[2J 90.0%\n"
