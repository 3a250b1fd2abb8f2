"""Small detectors on small images, trained by the trainer in this process."""

import csv
import gc
import pathlib

from command import small_fields

FIGURES = ("loss", "class_loss", "l1_loss", "giou_loss", "val_AP", "val_AP50", "val_AP75")
# DETR's encoder, decoder and training, but smaller; the backbone learns as fast as the rest.
DETECTOR = {
    "model.queries": 15,
    "model.encoder_layers": 2,
    "model.decoder_layers": 3,
    "model.hidden_width": 96,
    "model.hidden_heads": 4,
    "model.feed_forward": 192,
    "model.dropout": 0.0,
    "detection.backbone_rate": 1.0,
    "detection.multi_scale": False,
    "detection.random_crop": False,
    "data.flip": False,
}
# Backbones of 50 to 57 million multiply-accumulates at 64 x 64, as classifiers have them ...
BACKBONES = {
    "pit_s": {"model.patch_size": 8, "model.stride": 4, "model.head_dim": 8},
    "vit_s": {"model.patch_size": 8, "model.stride": 8, "model.head_dim": 12},
    "resnet50": {"model.base_width": 10, "model.stem_stride": 2},
}
# ... and what makes the stride of their last maps 8.
DILATION = {
    "pit_s": {"model.output_stride": 8},
    "vit_s": {},
    "resnet50": {"model.output_stride": 8, "model.frozen_stages": 0},
}


def train(recipe, backbone, folder, fields, small):
    """Trains a classifier ("vanilla") or a detector ("detr") in a run folder, or carries it on.

    `fields` are `{dotted field of Config: value}`; `small` is for the smallest network.
    """
    import keras

    from pit_keras.config import recipes
    from pit_keras.config.fields import set_field
    from pit_keras.training.tasks import open_source_of
    from pit_keras.training.trainer import Trainer

    name = f"detr_{backbone}" if recipe == "detr" else backbone
    config = recipes.recipe(recipe, name)
    if recipe == "detr":
        fields = {**DETECTOR, **DILATION[backbone], **fields}
    fields = {**BACKBONES[backbone], **fields}
    if small:
        fields |= {f"model.{field}": value for field, value in small_fields(name).items()}
    for path, value in fields.items():
        set_field(config, path, value)
    print(f"{name} in {folder}", flush=True)
    Trainer(config, open_source_of(config), folder).run()
    keras.backend.clear_session()
    gc.collect()


def history_rows(folder, every, **columns):
    """Rows of a run's history, each `every`th and the last, with more columns in front."""
    with (pathlib.Path(folder) / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {**columns, "epoch": int(row["epoch"]), **{name: row[name] for name in FIGURES}}
        for number, row in enumerate(rows, 1)
        if number % every == 0 or number == len(rows)
    ]
