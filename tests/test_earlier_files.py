"""Files that version 0.1.0 wrote, when the code was laid out otherwise, open and are carried on.

`golden/earlier` holds models with random weights and their logits for fixed images, and a run on
the embedded digits that was killed after step 12 of 22.
"""

import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.config.fields import Config
from pit_keras.data.labelled_images import open_source
from pit_keras.training.trainer import Trainer

EARLIER = pathlib.Path(__file__).parent / "golden/earlier"
IMAGES = np.linspace(-2, 2, 2 * 32 * 32 * 3, dtype="float32").reshape(2, 32, 32, 3)
FIRST_OF_KERAS = f"""
import sys
import pit_keras

assert "keras" not in sys.modules
import keras

keras.models.load_model({str(EARLIER / "pit.keras")!r})
for name in ("AdamP", "AdamW", "WarmUpCosine", "soft_cross_entropy"):
    assert keras.saving.get_registered_object("pit_keras>" + name), name
"""


@pytest.mark.parametrize("name", ["pit", "detr"])
def test_a_model_opens_and_computes_the_same(name):
    model = keras.models.load_model(EARLIER / f"{name}.keras")
    outputs = model(IMAGES, training=False)
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs
    expected = np.load(EARLIER / "outputs.npz")[name]
    # Every block begins with a normalisation: numbers on the way have the size 1.
    assert_close(logits, expected, roundings=terms_along(model), scale=1)


def test_keras_knows_the_layers_where_it_is_imported_after_the_package():
    subprocess.run([sys.executable, "-c", FIRST_OF_KERAS], check=True)


def test_what_is_public_is_imported_where_it_is_used():
    assert set(pit_keras.__all__) <= set(dir(pit_keras))
    assert all(getattr(pit_keras, name) is not None for name in pit_keras.__all__)
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = pit_keras.create_modle


def test_a_run_that_was_begun_is_carried_on(tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(EARLIER / "run", folder)
    begun = (folder / "history.csv").read_text()
    config = Config.from_json((folder / "config.json").read_text())

    results = Trainer(config, open_source("digits"), folder, verbose=False).run()

    assert "Resuming in epoch 2 of 2, after step 1 of 11." in capsys.readouterr().out
    columns, first, second = (folder / "history.csv").read_text().splitlines()
    # Earlier versions counted epochs from 0.
    assert f"{columns}\n0{first.removeprefix('1')}\n" == begun
    assert second.startswith("2,")
    assert (results["epochs"], results["best_epoch"]) == (2, 2)
    assert (folder / "results.json").exists()
