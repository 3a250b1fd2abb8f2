"""Sixteen photographs that foolbox ships, in COCO form with the boxes of photographs.json."""

import importlib.util
import json
import pathlib
import shutil

ANNOTATIONS = pathlib.Path(__file__).with_name("photographs.json")


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
