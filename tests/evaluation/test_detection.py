"""What a detector's answers say, and COCO's figures of it, against their definitions."""

import contextlib
import copy
import io
import json

import forked
import numpy as np
import pytest
from coco_form import change_json, write_coco_form
from detectors import IMAGE_SIZE, small_detector
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tolerances import assert_close

from pit_keras.config.fields import DataConfig
from pit_keras.data.coco import open_detection_source
from pit_keras.data.detection_pipeline import detection_evaluation_batches
from pit_keras.evaluation.detection import (
    COCO_METRICS,
    DetectionEvaluator,
    coco_detections,
    coco_metrics,
)
from pit_keras.models.boxes import detected
from pit_keras.runs.trained_detector import TrainedDetector

CATEGORY_IDS = (2, 3, 7)  # with gaps, as COCO's
EPS = float(np.finfo("float32").eps)


def random_outputs(images, queries=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.normal(size=(images, queries, classes + 1)).astype("float32") * 3,
        "boxes": rng.uniform(size=(images, queries, 4)).astype("float32"),
    }


def test_an_answer_is_the_likeliest_class_that_is_an_object_and_its_box_in_pixels():
    outputs, sizes = random_outputs(3), np.array([[40, 60], [100, 10], [7, 7]])
    found = {name: np.asarray(value) for name, value in detected(outputs, sizes).items()}
    best_of_all = set()
    for image in range(3):
        height, width = sizes[image]
        for query in range(5):
            shares = np.exp(outputs["logits"][image, query].astype("float64"))
            shares /= shares.sum()
            best_of_all.add(int(np.argmax(shares)))
            assert found["labels"][image, query] == np.argmax(shares[:3])
            # The exponent is a difference of up to 20, halves of whose roundings count.
            assert found["scores"][image, query] == pytest.approx(shares[:3].max(), rel=16 * EPS)
            x, y, w, h = outputs["boxes"][image, query].astype("float64")
            box = [(x - w / 2) * width, (y - h / 2) * height]
            box += [(x + w / 2) * width, (y + h / 2) * height]
            # A half, a sum and a product, of up to 1.5 times the image's larger side.
            assert found["boxes"][image, query] == pytest.approx(box, rel=0, abs=3 * EPS * 150)
    assert 3 in best_of_all  # some queries say "no object", and their second choice counts
    assert found["labels"].dtype == np.int32


def test_half_precision_answers_are_judged_in_float32():
    outputs = {name: value.astype("float16") for name, value in random_outputs(1).items()}
    outputs["boxes"][0, 0] = (0.5, 0.5, 1, 1)
    found = detected(outputs, np.array([[3001, 5003]]))  # of which float16 has no such numbers
    np.testing.assert_array_equal(found["boxes"][0, 0], [0, 0, 5003, 3001])


def test_detections_in_cocos_form_are_pythons_own_numbers():
    boxes = np.array([[[1, 2, 5, 9], [0, 0, 4, 2]], [[3, 3, 4, 4.5], [1, 1, 2, 2]]], "float32")
    scores = np.array([[0.5, 0.25], [0.75, 0.125]], "float32")
    labels = np.array([[0, 2], [1, 1]], "int32")
    found = coco_detections(np.array([30, 4]), CATEGORY_IDS, boxes, scores, labels)
    assert json.loads(json.dumps(found)) == [
        {"image_id": 30, "category_id": 2, "bbox": [1, 2, 4, 7], "score": 0.5},
        {"image_id": 30, "category_id": 7, "bbox": [0, 0, 4, 2], "score": 0.25},
        {"image_id": 4, "category_id": 3, "bbox": [3, 3, 1, 1.5], "score": 0.75},
        {"image_id": 4, "category_id": 3, "bbox": [1, 1, 1, 1], "score": 0.125},
    ]


def test_answers_of_a_class_that_the_data_lacks_are_left_out():
    boxes, scores = np.zeros((1, 2, 4)), np.array([[0.9, 0.8]])
    found = coco_detections([30], (None, 5), boxes, scores, np.array([[0, 1]]))
    assert [(each["category_id"], each["score"]) for each in found] == [(5, 0.8)]


def truth_of(*boxes, images=1, first_id=1):
    """Ground truth of (image, category, left, top, width, height[, crowd])."""
    return {
        "images": [{"id": number, "width": 400, "height": 300} for number in range(images)],
        "categories": [{"id": id_, "name": f"class {id_}"} for id_ in CATEGORY_IDS],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": list(box[:4]),
                "area": box[2] * box[3],
                "iscrowd": int(len(box) > 4),
            }
            for number, (image, category, *box) in enumerate(boxes, first_id)
        ],
    }


def detection(image, category, *box, score=0.5):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


def random_case(seed=0, images=6):
    """Objects of all sizes, some of them crowds, and detections of which some are near them."""
    rng = np.random.default_rng(seed)
    boxes, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(1, 8)):
            category, side = int(rng.choice(CATEGORY_IDS)), rng.uniform(5, 180)
            box = [*rng.uniform(0, 100, size=2), side, side * rng.uniform(0.5, 1.5)]
            boxes.append((image, category, *box, *([1] if rng.random() < 0.15 else [])))
            for _ in range(rng.integers(0, 4)):
                near = np.array(box) + rng.normal(size=4) * side * 0.08
                guess = category if rng.random() < 0.8 else int(rng.choice(CATEGORY_IDS))
                detections.append(detection(image, guess, *near.tolist(), score=rng.random()))
    return truth_of(*boxes, images=images), detections


def by_pycocotools(truth_file, detections_file):
    """All figures, as pycocotools' own example computes them of two files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        evaluation = COCOeval(truth, truth.loadRes(str(detections_file)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_all_figures_are_those_of_pycocotools_on_saved_files(tmp_path, seed):
    truth, detections = random_case(seed)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "detections.json").write_text(json.dumps(detections))
    expected = by_pycocotools(tmp_path / "truth.json", tmp_path / "detections.json")
    assert list(coco_metrics(truth, detections).values()) == expected
    assert len(set(expected)) > 8  # a case that tells the figures apart


def test_the_figures_have_the_names_of_what_they_count():
    # One object of each size; the overlap of the large one's box is 0.62, of the others' 1.
    sizes = {"small": 20, "medium": 60, "large": 100}
    truth = truth_of(*((0, 2, 150, 10, side, side) for side in sizes.values()))
    detections = [detection(0, 2, 150, 10, side, side) for side in (20, 60)]
    detections += [detection(0, 2, 150, 10, 62, 100)]
    figures = coco_metrics(truth, detections)
    assert figures["AP_small"] == figures["AP_medium"] == pytest.approx(1)
    assert figures["AP_large"] == pytest.approx(0.3)  # at 0.5, 0.55, 0.6
    assert figures["AR_large"] == pytest.approx(0.3)
    assert figures["AP50"] == pytest.approx(1)
    assert figures["AP75"] == pytest.approx(2 / 3, abs=0.01)  # at 101 recalls
    assert figures["AR100"] == figures["AR10"] == pytest.approx((2 + 0.3) / 3)
    assert figures["AR1"] < figures["AR10"]
    assert tuple(figures) == COCO_METRICS


def test_without_detections_everything_is_missed():
    figures = coco_metrics(truth_of((0, 2, 5, 5, 10, 10), images=2), [])
    missed = {name for name, figure in figures.items() if figure == 0}
    assert missed == {"AP", "AP50", "AP75", "AP_small", "AR1", "AR10", "AR100", "AR_small"}
    assert all(figure is None for name, figure in figures.items() if name not in missed)


def test_without_objects_there_is_no_figure():
    figures = coco_metrics(truth_of(images=1), [detection(0, 2, 1, 1, 5, 5)])
    assert set(figures.values()) == {None}
    only_crowd = truth_of((0, 2, 1, 1, 50, 50, 1))
    assert set(coco_metrics(only_crowd, [detection(0, 2, 1, 1, 50, 50)]).values()) == {None}


def test_an_object_of_the_id_0_is_found():
    truth = truth_of((0, 2, 5, 5, 10, 10), first_id=0)
    assert coco_metrics(truth, [detection(0, 2, 5, 5, 10, 10)])["AP"] == pytest.approx(1)


def test_nothing_is_printed_and_nothing_that_is_given_changes(capsys):
    truth, detections = random_case()
    before = copy.deepcopy((truth, detections))
    coco_metrics(truth, detections)
    assert (truth, detections) == before
    assert capsys.readouterr() == ("", "")


def test_broken_detections_are_refused():
    truth = truth_of((0, 2, 5, 5, 10, 10))
    good = detection(0, 2, 5, 5, 10, 10)
    for broken in (
        detection(0, 2, 5, float("nan"), 10, 10),
        detection(0, 2, 5, 5, 10, 10, score=float("inf")),
    ):
        with pytest.raises(ValueError, match="answer for the image 0 is not finite"):
            coco_metrics(truth, [good, broken])


DATA = DataConfig(image_size=IMAGE_SIZE)


@pytest.fixture(scope="module")
def trained():
    return TrainedDetector(small_detector(), ("red", "green", "blue"), DATA)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Seven validation images, lying and upright."""
    return write_coco_form(tmp_path_factory.mktemp("coco"), {"train": 4, "val": 7})


@pytest.fixture(scope="module")
def answers(trained, root):
    """What the detector says of each validation image by itself."""
    return answers_of(trained, open_detection_source(f"coco:{root}"))


@pytest.fixture(scope="module")
def source(root, answers):
    """The images, with a few objects that the detector finds."""

    def add_found(content):
        for number, image in enumerate(content["images"]):
            box = dict(answers[image["id"]][number])  # another query for each image
            box.pop("score")
            content["annotations"].append(box)

    change_json(root, "val", add_found)
    return open_detection_source(f"coco:{root}")


@pytest.fixture(scope="module")
def evaluator(trained, source):
    return DetectionEvaluator(trained.model, source)


@pytest.fixture(scope="module")
def evaluated(evaluator, source):
    """Figures and detections, of batches of four."""
    return evaluator(batches_of(source, 4))


def answers_of(trained, source):
    """What the detector says of each validation image by itself, by the image's id."""
    answers = {}
    for example in source.scan("val"):
        image = source.load(example["image"]).numpy()
        found = trained.answers(image)
        image_id = source.image_id("val", int(example["id"]))
        answers[image_id] = [
            detection(
                image_id,
                source.category_ids[label],
                *(float(side) for side in (left, top, right - left, bottom - top)),
                score=float(score),
            )
            for (left, top, right, bottom), score, label in zip(
                found["boxes"], found["scores"], found["labels"], strict=True
            )
        ]
    return answers


def batches_of(source, batch_size, **arguments):
    return detection_evaluation_batches(source, "val", DATA, batch_size=batch_size, **arguments)


def check_answers(model, answers, detections):
    """Whether each image has the answers that it has alone."""
    # All kernels, and the places that attention is summed over, twice, in each of four blocks.
    summed = sum(np.prod(w.shape[:-1]) for w in model.weights if len(w.shape) > 1)
    summed += 4 * 2 * (IMAGE_SIZE[0] // 8) * (IMAGE_SIZE[1] // 8)
    assert len(answers) == 7
    found = {image_id: [] for image_id in answers}
    for each in detections:
        found[each["image_id"]].append(each)
    for image_id, alone in answers.items():
        for name, roundings in (("category_id", 0), ("bbox", summed), ("score", summed)):
            values = [[each[name] for each in of_image] for of_image in (found[image_id], alone)]
            assert_close(*values, roundings=roundings)


def test_every_image_counts_once_and_each_has_the_answers_that_it_has_alone(
    trained, source, answers, evaluated
):
    figures, detections = evaluated
    check_answers(trained.model, answers, detections)
    assert figures == {**coco_metrics(source.ground_truth("val"), detections), "images": 7}
    assert 0 < figures["AP"] < 0.9


@pytest.mark.slow
def test_batches_of_one_give_the_same(trained, source, answers, evaluator):
    figures, detections = evaluator(batches_of(source, 1))
    check_answers(trained.model, answers, detections)
    assert figures == {**coco_metrics(source.ground_truth("val"), detections), "images": 7}


def test_an_evaluator_measures_the_weights_of_the_moment_and_tells_how_far_it_is(
    trained, source, evaluator, evaluated
):
    done, weights = [], trained.model.get_layer("box_head").weights
    for weight in weights:
        weight.assign(-weight)
    after, _ = evaluator(batches_of(source, 4), done.append)
    for weight in weights:
        weight.assign(-weight)
    assert evaluated[0]["AP"] > after["AP"]
    assert done == list(range(1, len(done) + 1))
    assert len(done) == len(list(batches_of(source, 4)))


def test_no_images_to_detect_in_are_an_error(trained, source):
    with pytest.raises(ValueError, match="There are no images to evaluate"):
        DetectionEvaluator(trained.model, source)(batches_of(source, 4).take(0))


def test_replicas_see_each_image_once(source, evaluated):
    """On two logical devices, in a process of their own, since devices are configured only once."""
    process = forked.run_code(TWO_DEVICES.format(source=source.name))
    process.check_returncode()
    figures, images = json.loads(process.stdout)
    assert figures == evaluated[0]
    assert figures["images"] == images == 7
    assert figures["AP"] > 0


TWO_DEVICES = f"""
import json, sys
sys.path[:0] = [{__file__.rpartition("/")[0]!r}, {__file__.rpartition("/evaluation/")[0]!r}]
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_detection import DetectionEvaluator, batches_of, open_detection_source, small_detector

source = open_detection_source({{source!r}})
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    mirrored = small_detector()
batches = strategy.distribute_datasets_from_function(lambda _: batches_of(source, 4, replicas=2))
figures, detections = DetectionEvaluator(mirrored, source, strategy=strategy)(batches)
print(json.dumps([figures, len(detections) // 10]))
"""
