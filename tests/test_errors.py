import keras
import pytest

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
