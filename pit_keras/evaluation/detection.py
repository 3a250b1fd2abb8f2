"""COCO's metrics over a whole split: every image once, the last partial batch too."""

import contextlib
import io

import keras
import numpy as np
import tensorflow as tf

from pit_keras.data.detection_pipeline import detection_evaluation_batches
from pit_keras.data.unreadable import UnreadableImages
from pit_keras.evaluation.classification import check_classes
from pit_keras.models.detr import masked_detector
from pit_keras.models.detr_outputs import detected, last_outputs

# In the order of pycocotools' `COCOeval.stats`.
COCO_METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR1",
    "AR10",
    "AR100",
    "AR_small",
    "AR_medium",
    "AR_large",
)


def coco_detections(image_ids, category_ids, boxes, scores, labels):
    """Detections in the form of COCO's results files, image after image.

    Args:
        image_ids: (N,) COCO's ids of the images.
        category_ids: (classes,) COCO's ids of the classes.
        boxes, scores, labels: Arrays as `detected` gives, of the N images.

    Returns:
        A list of N * Q dictionaries of `image_id`, `category_id`, `bbox` (left, top, width, height
        in pixels) and `score`, of Python's own numbers.
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
    ]


def coco_metrics(ground_truth, detections):
    """COCO's twelve figures of boxes, by pycocotools.

    Args:
        ground_truth: A dictionary in the form of COCO's annotation files: `images`, `annotations`
            with `area` and `iscrowd`, `categories`. All its images count.
        detections: A list in the form of COCO's results files, see `coco_detections`. Of an image
            and a class the 100 of the highest scores count, as COCO asks.

    Returns:
        Fractions by the names `COCO_METRICS`. `AP` is the mean over ten thresholds of IoU, 0.5 to
        0.95; small objects have less than 32 x 32 pixels of the stored image, large ones more than
        96 x 96. None, where pycocotools says -1, means that there is no such object to be found.

    Raises:
        ImportError: If pycocotools is not installed.
        ValueError: If a detection is of an image or a category that the ground truth lacks, or is
            not finite.
    """
    COCO, COCOeval = _pycocotools()
    _check_detections(ground_truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        # pycocotools writes into what it is given; and a box of the id 0 it would never find.
        annotations = [
            {**box, "id": number} for number, box in enumerate(ground_truth["annotations"], 1)
        ]
        truth = _indexed(COCO(), {**ground_truth, "annotations": annotations})
        found = (
            truth.loadRes([dict(detection) for detection in detections])
            if detections
            else _indexed(COCO(), {**ground_truth, "annotations": []})
        )
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
        raise ImportError(
            "COCO's metrics need the package pycocotools: pip install pit_keras[train]."
        ) from error
    return COCO, COCOeval


def _indexed(coco, dataset):
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _check_detections(ground_truth, detections):
    known = {"image": ground_truth["images"], "category": ground_truth["categories"]}
    for kind, of_kind in known.items():
        unknown = {each[f"{kind}_id"] for each in detections} - {each["id"] for each in of_kind}
        if unknown:
            raise ValueError(
                f"A detection is of the {kind} {min(unknown)}, which the ground truth lacks."
            )
    numbers = np.array([[*each["bbox"], each["score"]] for each in detections])
    is_finite = np.isfinite(numbers.reshape(len(detections), 5)).all(axis=1)
    if not is_finite.all():
        image = detections[np.argmin(is_finite)]["image_id"]
        raise ValueError(f"The detector's answer for the image {image} is not finite.")


class DetectionEvaluator:
    """Evaluates a detector on all devices of a strategy; compiled once, used every epoch.

    Args:
        model: A detector, see `pit_keras.models.detr`, of images of the batches' sizes.
        source: The `DetectionSource` that the batches are of.
        split: "train" or "val", whose ground truth counts.
        strategy: A `tf.distribute.Strategy`; None for the current one.

    Raises:
        ImportError: If pycocotools is not installed.
    """

    def __init__(self, model, source, split="val", strategy=None):
        _pycocotools()
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
            # From all replicas of all workers, so that every worker comes to the same figures.
            return {name: strategy.gather(value, axis=0) for name, value in found.items()}

        self._detect = compiled_detect

    def __call__(self, batches, after_batch=None):
        """Measures one pass over `pit_keras.data.detection_pipeline.detection_evaluation_batches`.

        Args:
            batches: Finitely many of `image`, `padding_mask`, `size`, `id` and `weight`, on the
                strategy's replicas; together all images of the split.
            after_batch: Called with the number of batches done, after each.

        Returns:
            `coco_metrics` and the number of `images`; and the detections, see `coco_detections`.

        Raises:
            ValueError: If there are no images, or the detector's answers are not finite.
        """
        detections, images = [], 0
        for done, batch in enumerate(batches, 1):
            found = {name: value.numpy() for name, value in self._detect(batch).items()}
            is_image = found.pop("weight") > 0
            found = {name: value[is_image] for name, value in found.items()}
            image_ids = [self._source.image_id(self._split, id_) for id_ in found.pop("id")]
            detections += coco_detections(image_ids, self._source.category_ids, **found)
            images += len(image_ids)
            if after_batch:
                after_batch(done)
        if not images:
            raise ValueError("There are no images to evaluate.")
        return {**coco_metrics(self._ground_truth, detections), "images": images}, detections


def evaluate_detection_source(trained, source, split="val", *, batch_size=8, progress=True):
    """Evaluates a trained detector on a split of a data set that has the detector's classes.

    Args:
        trained: A `TrainedDetector` of images of any size.
        source: What `pit_keras.data.coco.open_detection_source` returns.
        split: "train" or "val".
        batch_size: Images at a time.
        progress: Whether to show a progress bar.

    Returns:
        `coco_metrics`, `images`, `dataset`, `split` and `image_size`, the short and the long side
        of what the detector saw; and the detections, see `coco_detections`.

    Raises:
        ValueError: If the data's classes are not the detector's, the detector takes images of one
            size only, or an image cannot be read; it names the class or the image.
        ImportError: If pycocotools is not installed.
    """
    check_classes(trained.class_names, source)
    if trained.fixed_size is not None:
        height, width = trained.fixed_size
        raise ValueError(
            f"The detector takes images of {height} x {width} pixels only; evaluation needs one of "
            "any size, of the input shape (None, None, 3)."
        )
    unreadable, evaluator = UnreadableImages(), DetectionEvaluator(trained.model, source, split)
    batches = detection_evaluation_batches(
        source, split, trained.data, batch_size=batch_size, unreadable=unreadable
    )
    bar = keras.utils.Progbar(None, verbose=int(progress), unit_name="batch")
    with unreadable.plain_errors():
        figures, detections = evaluator(batches, bar.update)
    about = {"dataset": source.name, "split": split, "image_size": list(trained.data.image_size)}
    return {**figures, **about}, detections
