"""Regenerates `detection_loss.npz` from Hugging Face's port of DETR's criterion and matcher.

    pip install torch transformers scipy pillow
    python tests/golden/make_detection_loss.py

For every case NAME below the file holds what the detector and the data would give, in float32 and
int32: `NAME/logits` (B, L, Q, classes + 1), `NAME/boxes` (B, L, Q, 4), `NAME/labels` (B, M), -1
where there is none, and `NAME/target_boxes` (B, M, 4); and what the reference makes of it:
`NAME/matches` (B, L, M), -1 for none, `NAME/losses` (L, 3), each layer's class, L1 and GIoU loss
without weights, and `NAME/class_errors` (L,), the share of the boxes to whose query another class
is the likeliest, which the port lacks and PyTorch computes here.
"""

import pathlib

import numpy as np
import torch
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

LAYERS, NO_OBJECT_WEIGHT = 2, 0.1
# Queries, classes, places for targets, boxes of each image.
CASES = {
    "usual": (12, 5, 8, (3, 1, 8)),
    "an_image_without_boxes": (12, 5, 8, (2, 0, 5)),
    "without_boxes": (12, 5, 8, (0, 0)),
    "many_boxes": (100, 10, 100, (63, 7)),
    "more_boxes_than_queries": (6, 3, 10, (10, 4)),
}


def inputs(generator, queries, classes, places, counts):
    batch = len(counts)
    sizes = generator.uniform(0.01, 0.6, (2, batch, LAYERS * queries + places, 2))
    boxes = np.concatenate([generator.uniform(size=sizes[0].shape), sizes[0]], axis=-1)
    labels = generator.integers(classes, size=(batch, places))
    predicted = boxes[:, places:].reshape(batch, LAYERS, queries, 4)
    return {
        "logits": np.float32(2 * generator.normal(size=(batch, LAYERS, queries, classes + 1))),
        "boxes": np.float32(predicted),
        "labels": np.int32(np.where(np.arange(places) < np.array(counts)[:, None], labels, -1)),
        "target_boxes": np.float32(boxes[:, :places]),
    }


def reference(logits, boxes, labels, target_boxes):
    """Matches, losses and class errors of all layers, by the criterion of each layer."""
    targets = [
        {
            "class_labels": torch.tensor(row[row >= 0], dtype=torch.int64),
            "boxes": torch.tensor(image_boxes[row >= 0]),
        }
        for row, image_boxes in zip(labels, target_boxes, strict=True)
    ]
    matches = np.full((len(labels), LAYERS, labels.shape[1]), -1, np.int32)
    losses, errors = np.zeros((LAYERS, 3), np.float32), np.zeros(LAYERS, np.float32)
    for layer in range(LAYERS):
        outputs = {
            "logits": torch.tensor(logits[:, layer]),
            "pred_boxes": torch.tensor(boxes[:, layer]),
        }
        pairs = matched(outputs, targets)
        criterion = ImageLoss(
            matcher=lambda *_, pairs=pairs: pairs,
            num_classes=logits.shape[-1] - 1,
            eos_coef=NO_OBJECT_WEIGHT,
            losses=["labels", "boxes"],
        )
        found = criterion(outputs, targets)
        losses[layer] = [float(found[name]) for name in ("loss_ce", "loss_bbox", "loss_giou")]
        wrong = []
        for image, (queries, indices) in enumerate(pairs):
            matches[image, layer, indices] = queries
            classes = outputs["logits"][image, queries].argmax(-1)
            wrong += (classes != targets[image]["class_labels"][indices]).tolist()
        errors[layer] = sum(wrong) / max((labels >= 0).sum(), 1)
    return {"matches": matches, "losses": losses, "class_errors": errors}


def matched(outputs, targets):
    """Queries and targets of each image's pairs; the port cannot match a batch without boxes."""
    if not any(len(target["boxes"]) for target in targets):
        none = torch.zeros(0, dtype=torch.int64)
        return [(none, none)] * len(targets)
    return HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)(outputs, targets)


def main():
    generator = np.random.default_rng(0)
    golden = {}
    for name, case in CASES.items():
        arrays = inputs(generator, *case)
        arrays |= reference(**arrays)
        golden |= {f"{name}/{key}": array for key, array in arrays.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("detection_loss.npz"), **golden)


if __name__ == "__main__":
    main()
