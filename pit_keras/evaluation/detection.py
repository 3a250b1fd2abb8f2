"""COCO's metrics over a whole split: every image once, the last partial batch too."""

import contextlib
import io

import numpy as np
import tensorflow as tf

from pit_keras.config.fields import DETECTORS_METRICS
from pit_keras.data.class_matching import labels_in
from pit_keras.data.detection_pipeline import detection_evaluation_batches
from pit_keras.data.unreadable import UnreadableImages
from pit_keras.errors import require_tensorflow
from pit_keras.models.boxes import detected, last_outputs
from pit_keras.models.detr import masked_detector
from pit_keras.waits import waiting

# In the order of pycocotools' `COCOeval.stats`.
COCO_METRICS = (
    *DETECTORS_METRICS,
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def coco_detections(image_ids, category_ids, boxes, scores, labels):
    """The results of `detected` for N images, as in COCO's results files.

    `image_ids` (N,) and `category_ids` (classes,) are COCO's. There are N * Q of {"image_id",
    "category_id", "bbox": [left, top, width, height], "score"}, but none of an id None.
    """
    corners, extents = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    boxes = np.concatenate([corners, extents], axis=-1)
    return [
        {
            "image_id": int(image_id),
            "category_id": int(category_ids[label]),
            "bbox": box,
            "score": score,
        }
        for image_id, *of_image in zip(image_ids, boxes, scores, labels, strict=True)
        for box, score, label in zip(*(values.tolist() for values in of_image), strict=True)
        if category_ids[label] is not None
    ]


def coco_metrics(ground_truth, detections):
    """COCO's twelve metrics of boxes, by pycocotools.

    They are fractions by the names `COCO_METRICS`, None where there is no such object. `AP` is the
    mean over ten thresholds of IoU, 0.5 to 0.95; small objects have less than 32 x 32 pixels of the
    stored image, large ones more than 96 x 96.

    Args:
        ground_truth: As in COCO's annotation files: `images`, `annotations` with `area` and
            `iscrowd`, `categories`. All its images count.
        detections: See `coco_detections`. The 100 of the highest scores count per image and class.
    """
    COCO, COCOeval = _pycocotools()
    numbers = np.array([[*each["bbox"], each["score"]] for each in detections]).reshape(-1, 5)
    is_finite = np.isfinite(numbers).all(axis=1)
    if not is_finite.all():
        image = detections[np.argmin(is_finite)]["image_id"]
        raise ValueError(f"The detector's answer for the image {image} is not finite.")
    # Copies, because pycocotools writes into them; it never finds a box of the id 0.
    truth, found = (
        [{**box, "id": number} for number, box in enumerate(boxes, 1)]
        for boxes in (ground_truth["annotations"], detections)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(COCO(), ground_truth, truth)
        # Not for an empty list, which `loadRes` cannot read.
        found = truth.loadRes(found) if found else _indexed(COCO(), ground_truth, found)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = zip(COCO_METRICS, evaluation.stats.tolist(), strict=True)
    return {name: None if figure == -1 else figure for name, figure in figures}


def _pycocotools():
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("COCO's metrics need pycocotools: pip install pycocotools.") from error
    return COCO, COCOeval


def _indexed(coco, ground_truth, annotations):
    coco.dataset = {**ground_truth, "annotations": annotations}
    coco.createIndex()
    return coco


class DetectionEvaluator:
    """Evaluates a detector on all devices of a strategy; compiled once, used every epoch."""

    def __init__(self, model, source, split="val", strategy=None, category_ids=None):
        """`category_ids` are those of the model's classes, by default the data's."""
        require_tensorflow("Evaluation")
        _pycocotools()
        self._category_ids = source.category_ids if category_ids is None else category_ids
        self._source, self._split = source, split
        self._ground_truth = source.ground_truth(split)
        strategy = strategy or tf.distribute.get_strategy()
        detector = masked_detector(model)

        def detect(batch):
            inputs = {"images": batch["image"], "padding_mask": batch["padding_mask"]}
            outputs = last_outputs(detector(inputs, training=False))
            answers = detected(outputs, batch["size"])
            return {**answers, "id": batch["id"], "weight": batch["weight"]}

        @tf.function(autograph=False)
        def compiled_detect(batch):
            found = strategy.run(detect, args=(batch,))
            # From all replicas of all workers, so that every worker has the same metrics.
            return {name: strategy.gather(value, axis=0) for name, value in found.items()}

        self._detect = compiled_detect

    def __call__(self, batches, after_batch=None):
        """Measures one pass over `pit_keras.data.detection_pipeline.detection_evaluation_batches`.

        `after_batch` is called with the number of batches done. Returns `coco_metrics` and the
        number of `images`; and the detections, see `coco_detections`.
        """
        detections, images = [], 0
        for done, batch in enumerate(batches, 1):
            found = {name: value.numpy() for name, value in self._detect(batch).items()}
            is_image = found.pop("weight") > 0
            found = {name: value[is_image] for name, value in found.items()}
            image_ids = [self._source.image_id(self._split, id_) for id_ in found.pop("id")]
            detections += coco_detections(image_ids, self._category_ids, **found)
            images += len(image_ids)
            if after_batch:
                after_batch(done)
        if not images:
            raise ValueError("There are no images to evaluate.")
        return {**coco_metrics(self._ground_truth, detections), "images": images}, detections


def evaluate_detection_source(trained, source, split="val", *, batch_size=8, progress=True):
    """Evaluates a trained detector on a split of a data set with the detector's classes.

    Returns `coco_metrics`, `images`, `dataset`, `split` and `image_size`, the short and the long
    side of the detector's images; and the detections, see `coco_detections`.
    """
    source = source.oriented(trained.apply_orientation)
    labels = labels_in(trained.class_names, source, "the detector")
    id_of = dict(zip(labels, source.category_ids, strict=True))
    ids = [id_of.get(label) for label in range(len(trained.class_names))]
    if trained.fixed_size is not None:
        size = "{} x {}".format(*trained.fixed_size)
        raise ValueError(
            f"The detector takes images of {size} pixels only; evaluation has all sizes."
        )
    unreadable = UnreadableImages()
    evaluator = DetectionEvaluator(trained.model, source, split, category_ids=ids)
    batches = detection_evaluation_batches(
        source, split, trained.data, batch_size=batch_size, unreadable=unreadable
    )
    shown = waiting("Evaluating") if progress else contextlib.nullcontext()
    with unreadable.plain_errors(), shown:
        figures, detections = evaluator(batches)
    about = {"dataset": source.name, "split": split, "image_size": list(trained.data.image_size)}
    return {**figures, **about}, detections
