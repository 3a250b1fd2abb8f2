"""The wheel has all that a clone has: it is built, installed and used far from the repository."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
TINY = [
    *("--model=pit_ti", "--dataset=digits", "--image_size=24", "--batch_size=200", "--epochs=1"),
    *("--jit=off", "--config.model.patch_size=4", "--config.model.stride=4"),
    *("--config.model.head_dim=8", "--config.model.depths=(1,1,1)"),
    "--config.optimizer.warmup_epochs=0",
]


def call(*command, cwd):
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    ended = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pit_keras", source / "pit_keras", ignore=left_out)
    pip = sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"
    call(*pip, "--wheel-dir", folder, ".", cwd=source)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(wheel):
    files = (path for path in (ROOT / "pit_keras").rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("pit_keras/")}
    assert packed == expected


@pytest.mark.slow
def test_the_wheel_trains_and_predicts(wheel, tmp_path):
    environment, work = tmp_path / "environment", tmp_path / "work"
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    pip = sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"
    call(*pip, wheel, cwd=tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    # What the package needs is this environment's, so nothing is downloaded.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    work.mkdir()
    Image.fromarray(np.full((20, 30, 3), 90, "uint8")).save(work / "grey.png")
    program = environment / "bin/pit-keras"

    where = call(python, "-c", "import pit_keras; print(pit_keras.__file__)", cwd=work).stdout
    trained = call(program, "train", *TINY, "--output_dir=run", cwd=work)
    predicted = call(program, "predict", "--model=run", "--top=1", "grey.png", cwd=work)

    assert where.startswith(str(packages))
    assert "Best: epoch 1 of 1, top-1 " in trained.stdout
    assert trained.stdout.endswith("Everything is in run.\n")
    assert (work / "run/model.keras").is_file()
    assert "cudart" not in trained.stderr
    name, best = predicted.stdout.split(": ")
    assert name == "grey.png"
    assert best.endswith("%\n")
    assert predicted.stderr == ""
