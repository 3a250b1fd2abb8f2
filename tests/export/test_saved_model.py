import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pit_keras.export.agreement import TOLERANCE, compare
from pit_keras.export.saved_model import export_saved_model

MODELS = ("pit_ti", "pit_ti_distilled", "vit_ti")

# What somebody else's program does: TensorFlow alone, batches, images of several sizes.
PROGRAM = """
import json, pathlib, sys
sys.modules["pit_keras"] = None
import numpy as np
import tensorflow as tf

folder = pathlib.Path(sys.argv[1])
batches = np.load(folder / "images.npz")
for path in sorted(folder.glob("*_model")):
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    outputs = [serve(images=tf.constant(batches[name])) for name in batches.files]
    results = {key: np.concatenate([o[key] for o in outputs]) for key in outputs[0]}
    np.savez(folder / f"{path.name}.npz", **results)
    names = pathlib.Path(loaded.classes.asset_path.numpy().decode())
    report = {
        "names": names.read_text(encoding="utf-8").splitlines(),
        "asset": str(names.relative_to(path)),
        "input": str(serve.structured_input_signature[1]["images"]),
    }
    (folder / f"{path.name}.json").write_text(json.dumps(report))
"""


@pytest.fixture(scope="module")
def batches(photographs):
    """Batches of real images: (2, 427, 640, 3) and (3, 50, 40, 3)."""
    small = photographs[1]
    return {
        "large": np.stack([photographs[0], photographs[4]]),
        "small": np.stack([small[at : at + 50, at : at + 40] for at in (100, 150, 200)]),
    }


@pytest.fixture(scope="module")
def served(make_trained, batches, tmp_path_factory):
    """By model name: the trained model, its logits and probabilities elsewhere, and a report."""
    folder = tmp_path_factory.mktemp("served")
    trained = {name: make_trained(name) for name in MODELS}
    for name in MODELS:
        export_saved_model(trained[name], folder / f"{name}_model")
    np.savez(folder / "images.npz", **batches)
    subprocess.run([sys.executable, "-I", "-c", PROGRAM, folder], cwd=folder, check=True)
    return {
        name: (
            trained[name],
            np.load(folder / f"{name}_model.npz"),
            json.loads((folder / f"{name}_model.json").read_text()),
        )
        for name in MODELS
    }


@pytest.mark.parametrize("name", MODELS)
def test_another_program_computes_the_same(served, batches, name):
    trained, outputs, report = served[name]
    expected = trained.logits([image for batch in batches.values() for image in batch])
    assert report["input"].startswith("TensorSpec(shape=(None, None, None, 3), dtype=tf.uint8")
    assert expected.shape == (5, 10)
    # The images do make a difference, one that the comparison would see.
    assert expected.std(axis=0).mean() > 10 * TOLERANCE * np.abs(expected).max()
    assert compare(expected, outputs["logits"]).within()
    np.testing.assert_allclose(
        outputs["probabilities"], tf.nn.softmax(expected).numpy(), rtol=0, atol=1e-5
    )


def test_class_names_travel_with_it(served):
    trained, _, report = served["pit_ti"]
    assert tuple(report["names"]) == trained.class_names
    assert report["asset"] == "assets/classes.txt"


def test_a_line_break_in_a_name_is_an_error(make_trained, tmp_path):
    trained = dataclasses.replace(make_trained(), class_names=("cat\ndog", *"bcdefghij"))
    with pytest.raises(ValueError, match=r"'cat\\ndog' holds a line break"):
        export_saved_model(trained, tmp_path / "model")
    assert not (tmp_path / "model").exists()
