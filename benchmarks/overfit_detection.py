"""Whether a detector can learn sixteen photographs by heart: its average precision on them.

    pip install -e .[train]
    pip install --no-deps foolbox==3.3.4
    python benchmarks/overfit_detection.py --model=detr_pit_s --epochs=300 --output_dir=DIR

What is wrong with boxes, matching or losses keeps a detector from that. foolbox ships photographs
of ImageNet's classes; photographs.json, beside this file, has boxes around their main objects. They
are written as DIR/photographs in COCO's form, the same for training and validation, and
train/detect.py trains on them in DIR/run. It gets all flags but --output_dir. A run that was cut
short is carried on by the same command.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pit_keras.errors import exit_with_one_sentence

ROOT = pathlib.Path(__file__).parents[1]
ANNOTATIONS = ROOT / "benchmarks/photographs.json"


def write_photographs(folder, photographs):
    """Writes FOLDER/{train,val}.json and FOLDER/{train,val}/*.jpg, the same images in both.

    Args:
        folder: Made if need be; files of the same names are replaced.
        photographs: The folder with the images that photographs.json names.
    """
    folder = pathlib.Path(folder)
    names = [image["file_name"] for image in json.loads(ANNOTATIONS.read_text())["images"]]
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(pathlib.Path(photographs) / name, folder / split / name)
        shutil.copyfile(ANNOTATIONS, folder / f"{split}.json")


def foolbox_photographs():
    """The folder of the photographs that foolbox ships.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    spec = importlib.util.find_spec("foolbox")
    if spec is None:
        raise ModuleNotFoundError(
            "The photographs are foolbox's, which is not installed: "
            "pip install --no-deps foolbox==3.3.4."
        )
    return pathlib.Path(spec.origin).parent / "data"


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False, epilog="All else: see train/detect.py.")
    parser.add_argument("--output_dir", required=True, help="folder for photographs and run")
    arguments, others = parser.parse_known_args()
    output_dir = pathlib.Path(arguments.output_dir)
    photographs, run = output_dir / "photographs", output_dir / "run"
    with exit_with_one_sentence():
        write_photographs(photographs, foolbox_photographs())
    command = [sys.executable, str(ROOT / "train/detect.py"), *others]
    command += [f"--dataset=coco:{photographs}", f"--output_dir={run}"]
    print(*command, flush=True)
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
