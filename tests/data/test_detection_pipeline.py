import itertools
import logging
import types

import numpy as np
import pytest
import tensorflow as tf
from coco_form import change_json, write_coco_form
from PIL import ExifTags, Image

from pit_keras.config.fields import DataConfig
from pit_keras.data.coco import open_detection_source
from pit_keras.data.detection_pipeline import (
    detection_evaluation_batches,
    detection_train_batches,
    padded_sides,
)
from pit_keras.data.pipeline import check_train_batches
from pit_keras.data.preprocessing import normalise
from pit_keras.data.unreadable import UnreadableImageError, UnreadableImages

ALL = types.SimpleNamespace(multi_scale=True, random_crop=True)
NONE = types.SimpleNamespace(multi_scale=False, random_crop=False)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """24 and 11 images, not to be changed."""
    return write_coco_form(tmp_path_factory.mktemp("scenes"), {"train": 24, "val": 11})


@pytest.fixture(scope="module")
def source(scenes):
    return open_detection_source(f"coco:{scenes}")


@pytest.fixture
def data():
    return DataConfig(image_size=(40, 60))


@pytest.fixture(scope="module")
def augmented(source):
    """Two epochs of six batches, with all random steps."""
    return train(source, DataConfig(image_size=(40, 60)), 12)


@pytest.fixture(scope="module")
def pairs(source):
    """Many batches of two."""
    return train(source, DataConfig(image_size=(40, 60)), 40, batch_size=2)


def take(batches, count=None):
    return list(itertools.islice(batches.as_numpy_iterator(), count))


def train(source, data, count, detection=ALL, **options):
    options = {"batch_size": 4, "seed": 5, **options}
    return take(detection_train_batches(source, data, detection, **options), count)


def assert_identical(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def levels(batch, data):
    return 255 * (batch["image"] * np.float32(data.std) + np.float32(data.mean))


def test_train_batches_have_the_shapes_of_the_contract(source, data):
    batches = detection_train_batches(source, data, ALL, batch_size=4, seed=0, replicas=2)
    assert batches.element_spec == {
        "image": tf.TensorSpec((2, None, None, 3), tf.float32),
        "padding_mask": tf.TensorSpec((2, None, None), tf.bool),
        "content": tf.TensorSpec((2, 2), tf.int32),
        "boxes": tf.TensorSpec((2, 100, 4), tf.float32),
        "labels": tf.TensorSpec((2, 100), tf.int32),
        "id": tf.TensorSpec((2,), tf.int64),
        "position": tf.TensorSpec((2,), tf.int64),
    }


def test_rectangles_stay_under_their_boxes(augmented, data):
    """From the files to the batch, whatever is drawn: the pixel in the middle is of the class."""
    found = 0
    for batch in augmented:
        pixels = levels(batch, data)
        for image, mask, boxes, labels in zip(
            pixels, batch["padding_mask"], batch["boxes"], batch["labels"], strict=True
        ):
            height, width = (~mask[:, 0]).sum(), (~mask[0]).sum()
            for (x, y, w, h), label in zip(boxes[labels >= 0], labels[labels >= 0], strict=True):
                if min(w * width, h * height) >= 4:
                    found += 1
                    assert image[int(y * height), int(x * width)].argmax() == label
                    assert image[int(y * height), int(x * width)].max() > 160
    assert found > 50


def test_padding_is_at_the_right_and_below_and_nothing_is_there(augmented):
    for batch in augmented:
        mask = batch["padding_mask"]
        rows, columns = mask.all(axis=2), mask.all(axis=1)  # (B, H), (B, W)
        np.testing.assert_array_equal(mask, rows[:, :, None] | columns[:, None, :])
        assert (np.diff(rows.astype(int)) >= 0).all()
        assert (np.diff(columns.astype(int)) >= 0).all()
        assert (batch["image"][mask] == 0).all()
        assert (np.abs(batch["image"][~mask]).sum(axis=-1) > 0).mean() > 0.99


def test_rows_without_a_box_are_marked(augmented):
    for batch in augmented:
        absent = batch["labels"] < 0
        assert (batch["labels"][absent] == -1).all()
        assert (batch["boxes"][absent] == 0).all()
        boxes = batch["boxes"][~absent]
        assert (boxes[:, 2:] > 0).all()
        # A centre is a sum, its half, a share and perhaps mirrored; a side two, and an edge one.
        error = 7 * np.finfo("float32").eps
        assert (boxes[:, :2] - boxes[:, 2:] / 2 >= -error).all()
        assert (boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + error).all()
        assert (np.diff(absent.astype(int), axis=1) >= 0).all()


def test_without_random_steps_the_batches_are_the_files(source, data):
    data.flip = False
    for batch in train(source, data, 6, NONE):
        for row, number in enumerate(batch["id"]):
            stored = Image.open(source.describe("train", int(number)))
            mask = batch["padding_mask"][row]
            height, width = (~mask[:, 0]).sum(), (~mask[0]).sum()
            short = 40 if max(stored.size) / min(stored.size) <= 1.5 else 38
            assert min(height, width) == short
            expected = stored.resize((width, height), Image.Resampling.BILINEAR)
            found = levels(batch, data)[row][:height, :width]
            assert np.abs(found - np.asarray(expected)).max() < 1.01


def test_there_are_few_shapes(source, pairs, data):
    shapes = {batch["image"].shape[1:3] for batch in pairs}
    assert shapes <= set(itertools.product(padded_sides((40, 60)), repeat=2))
    assert padded_sides((40, 60)) == (40, 50, 60)
    assert 4 <= len(shapes) <= 9
    data.image_size = (48, 48)
    assert {b["image"].shape for b in train(source, data, 5)} == {(4, 48, 48, 3)}


def test_the_smallest_shape_that_holds_a_step_is_taken(pairs):
    for batch in pairs:
        mask = batch["padding_mask"]
        for side, content in zip(
            mask.shape[1:],
            ((~mask).any(axis=(0, 2)).sum(), (~mask).any(axis=(0, 1)).sum()),
            strict=True,
        ):
            assert side == min(s for s in (40, 50, 60) if s >= content)


@pytest.mark.parametrize("done", [pytest.param(1, marks=pytest.mark.slow), 5, 8])
def test_resumed_training_receives_the_same_batches(source, data, augmented, done):
    start = int(augmented[done - 1]["position"][-1])
    assert start == 4 * done
    assert_identical(train(source, data, 10 - done, start=start), augmented[done:10])


def test_batches_do_not_depend_on_the_number_of_threads(source, data, augmented):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    batches = detection_train_batches(source, data, ALL, batch_size=4, seed=5)
    assert_identical(take(batches.with_options(options), 6), augmented[:6])


def test_an_epoch_gives_each_example_once_and_augments_it_anew(augmented):
    seen = []
    for epoch in (augmented[:6], augmented[6:]):
        ids = np.concatenate([batch["id"] for batch in epoch])
        assert sorted(ids) == list(range(24))
        boxes = np.concatenate([batch["boxes"] for batch in epoch])
        seen.append(boxes[np.argsort(ids)])
    # Alike only where neither is cropped and both are mirrored or not: one in eight.
    assert (seen[0] == seen[1]).all(axis=(1, 2)).mean() < 0.4


def test_replicas_share_a_step_of_one_shape_however_they_are_spread(source, data):
    whole = train(source, data, 3, batch_size=8)
    parts = train(source, data, 12, batch_size=8, replicas=4)
    for step, batch in enumerate(whole):
        own = parts[4 * step : 4 * step + 4]
        assert {part["image"].shape for part in own} == {(2, *batch["image"].shape[1:])}
        joined = {key: np.concatenate([part[key] for part in own]) for key in batch}
        assert_identical([joined], [batch])
    workers = [
        train(source, data, 6, batch_size=8, replicas=4, worker=worker, workers=2)
        for worker in range(2)
    ]
    for step in range(3):
        ids = [b["id"] for own in workers for b in own[2 * step : 2 * step + 2]]
        np.testing.assert_array_equal(np.concatenate(ids), whole[step]["id"])
    seen = [int(i) for own in workers for batch in own for i in batch["id"]]
    assert sorted(seen) == list(range(24))


def evaluate(source, data, split="val", **options):
    return take(detection_evaluation_batches(source, split, data, **options))


@pytest.fixture(scope="module")
def evaluated(source):
    """The validation images in batches of two."""
    return evaluate(source, DataConfig(image_size=(40, 60)), batch_size=2)


def test_evaluation_has_one_shape_for_each_orientation(source, data, evaluated):
    batches = evaluated
    assert {batch["image"].shape for batch in batches} == {(2, 40, 60, 3), (2, 60, 40, 3)}
    ids = [int(i) for batch in batches for i in batch["id"]]
    assert sorted(i for i in ids if i >= 0) == list(range(11))
    for batch in batches:
        filler = batch["id"] < 0
        np.testing.assert_array_equal(batch["weight"], ~filler)
        assert batch["size"].dtype == batch["content"].dtype == np.int32
        upright = batch["image"].shape[1] == 60
        assert (~batch["padding_mask"]).any(axis=(1, 2)).all()  # something is always to be seen
        for row in np.flatnonzero(~filler):
            stored = Image.open(source.describe("val", int(batch["id"][row])))
            height, width = batch["size"][row]
            assert stored.size == (width, height)
            assert (height > width) == upright
            mask = ~batch["padding_mask"][row]
            content = (mask[:, 0].sum(), mask[0].sum())
            assert mask.sum() == np.prod(content)
            np.testing.assert_array_equal(batch["content"][row], content)
            scale = min(40 / min(height, width), 60 / max(height, width))
            np.testing.assert_allclose(content, [height * scale, width * scale], atol=1)
            expected = stored.resize(content[::-1], Image.Resampling.BILINEAR)
            found = levels(batch, data)[row][: content[0], : content[1]]
            assert np.abs(found - np.asarray(expected)).max() < 1.01


@pytest.mark.parametrize(
    ("split", "replicas", "workers"),
    [
        ("val", 4, 2),
        ("train", 4, 2),
        *(
            pytest.param("val", *both, marks=pytest.mark.slow)
            for both in ((1, 1), (4, 1), (2, 2), (12, 3))
        ),
        *(
            pytest.param("train", *both, marks=pytest.mark.slow)
            for both in ((1, 1), (4, 1), (2, 2), (12, 3))
        ),
    ],
)
def test_evaluation_counts_every_example_once_over_all_workers(
    source, data, split, replicas, workers
):
    counts, ids = set(), []
    for worker in range(workers):
        batches = evaluate(
            source, data, split, batch_size=12, replicas=replicas, worker=worker, workers=workers
        )
        assert {batch["image"].shape[0] for batch in batches} == {12 // replicas}
        counts.add(len(batches))
        for batch in batches:
            np.testing.assert_array_equal(batch["weight"], batch["id"] >= 0)
            ids += [int(i) for i in batch["id"] if i >= 0]
    assert sorted(ids) == list(range(source.sizes[split]))
    assert len(counts) == 1


@pytest.mark.parametrize("sizes", [((48, 72),), ((72, 48),)])
def test_evaluation_of_one_orientation_has_no_more_batches_than_needed(tmp_path, data, sizes):
    root = write_coco_form(tmp_path, {"train": 4, "val": 5}, sizes=sizes)
    batches = evaluate(open_detection_source(f"coco:{root}"), data, batch_size=2)
    assert len(batches) == 3
    assert len({batch["image"].shape for batch in batches}) == 1


def test_one_pixel_of_the_filler_is_not_padding_so_that_attention_has_something(evaluated, data):
    filler = next(b for b in evaluated if (b["id"] < 0).any())
    row = int(np.argmin(filler["id"]))
    assert filler["padding_mask"][row].sum() == 40 * 60 - 1
    black = normalise(np.zeros((1, 1, 3)), data.mean, data.std).numpy()[0, 0]
    np.testing.assert_allclose(filler["image"][row, 0, 0], black)


@pytest.fixture
def damaged(tmp_path):
    """One training image that is cut short and one that is not of the size that is said of it."""
    root = write_coco_form(tmp_path / "damaged", {"train": 8, "val": 3})
    broken = root / "train" / "002.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    turned = root / "train" / "005.jpg"
    Image.open(turned).rotate(90, expand=True).save(turned)
    return root


def test_images_that_cannot_be_used_are_skipped_in_training(damaged, data, caplog):
    source, report = open_detection_source(f"coco:{damaged}"), UnreadableImages()
    with caplog.at_level(logging.WARNING):
        batches = train(source, data, 9, batch_size=2, unreadable=report)
    ids = {int(i) for batch in batches for i in batch["id"]}
    assert ids == {0, 1, 3, 4, 6, 7}
    assert {name[-7:] for name in report.positions} == {"002.jpg", "005.jpg"}
    messages = sorted({record.getMessage().split("/")[-1] for record in caplog.records})
    assert messages == [
        "002.jpg: it cannot be read as a JPEG or PNG image.",
        "005.jpg: it is 72 x 48 pixels, its annotations say 48 x 72 (an EXIF orientation is not "
        "applied; --config.data.apply_orientation=true applies it).",
    ]


def test_an_image_that_exif_turns_has_the_size_that_is_said_of_it(damaged, data, caplog):
    turned, exif = damaged / "train" / "005.jpg", Image.Exif()
    with Image.open(turned) as picture:
        exif[ExifTags.Base.Orientation] = 6  # the reverse of what was done to it
        picture.save(turned, exif=exif)
    data.apply_orientation = True
    source, report = open_detection_source(f"coco:{damaged}"), UnreadableImages()
    train(source, data, 9, batch_size=2, unreadable=report)
    assert {name[-7:] for name in report.positions} == {"002.jpg"}
    # Turned where nothing asks for it, it has another size.
    with Image.open(turned) as picture:
        picture.rotate(90, expand=True).save(turned, exif=exif)
    caplog.clear()
    train(source, data, 9, batch_size=2)
    assert "is applied; --config.data.apply_orientation=false leaves it)" in caplog.text


@pytest.mark.parametrize(
    ("number", "message"),
    [(2, "002.jpg cannot be read"), (5, "005.jpg is 72 x 48 pixels, its annotations say 48 x 72")],
)
def test_they_end_evaluation_and_on_request_training(damaged, data, number, message):
    def keep_one_bad(content):
        other = content["images"][7 - number]["id"]
        content["images"] = [i for i in content["images"] if i["id"] != other]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != other]

    change_json(damaged, "train", keep_one_bad)
    source = open_detection_source(f"coco:{damaged}")
    data.skip_unreadable = False
    for batches in (
        lambda report: evaluate(source, data, "train", batch_size=2, unreadable=report),
        lambda report: train(source, data, 12, batch_size=2, unreadable=report),
    ):
        report = UnreadableImages()
        with pytest.raises(UnreadableImageError, match=message), report.plain_errors():
            batches(report)


def test_too_many_that_cannot_be_used_end_training(tmp_path, data):
    root = write_coco_form(tmp_path, {"train": 4, "val": 1})
    for number in range(3):
        (root / "train" / f"{number:03d}.jpg").write_bytes(b"nothing")
    report = UnreadableImages()
    source = open_detection_source(f"coco:{root}")
    with (
        pytest.raises(UnreadableImageError, match="More than half of the 4 images"),
        report.plain_errors(),
    ):
        train(source, data, 4, batch_size=2, unreadable=report)


def test_what_cannot_be_batched_is_said_before(source, data):
    with pytest.raises(ValueError, match="between 1 and the 24 training images"):
        check_train_batches(source, data, 25)
    with pytest.raises(ValueError, match="number of replicas, 3; got 8"):
        check_train_batches(source, data, 8, replicas=3)
    with pytest.raises(ValueError, match=r"must be a positive multiple .* got 0"):
        evaluate(source, data, batch_size=0)
    with pytest.raises(ValueError, match=r"\(--config.training.eval_batch_size\)"):
        evaluate(source, data, batch_size=3, replicas=2)
