import dataclasses
import itertools
import os

import numpy as np
import pytest
import tensorflow as tf
from tolerances import assert_close

from pit_keras.config.fields import DataConfig
from pit_keras.data.augmentation import crop_box
from pit_keras.data.color_jitter import color_jitter
from pit_keras.data.labelled_images import ArraySource, open_source
from pit_keras.data.pipeline import (
    _augment,
    _view_seed,
    evaluation_batches,
    steps_per_epoch,
    train_batches,
)
from pit_keras.data.preprocessing import normalise, preprocess_evaluation, resize
from pit_keras.data.seeds import example_seed
from pit_keras.data.unreadable import UnreadableImageError, UnreadableImages

EPS = float(np.finfo("float32").eps)


def take(batches, count):
    return list(itertools.islice(batches.as_numpy_iterator(), count))


def assert_identical(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def break_file(path):
    path.write_bytes(path.read_bytes()[:200])


def with_threads(batches, count):
    options = tf.data.Options()
    options.threading.private_threadpool_size = count
    options.autotune.enabled = count > 1
    return batches.with_options(options)


@pytest.fixture(scope="module", params=["digits", "folder", "records"])
def source(request, folder_with_a_broken_image, squares):
    """A source of each kind; an image of the folder is skipped."""
    if request.param == "digits":
        return open_source("digits")
    if request.param == "records":
        return open_source("squares", data_dir=squares)
    return open_source(f"folder:{folder_with_a_broken_image}", holdout=0.2)


@pytest.fixture(scope="module")
def plain():
    """The first 100 digits of the seed 0 cropped, resized and mirrored, and no more."""
    config = DataConfig(image_size=(24, 24))
    (batch,) = take(train_batches(open_source("digits"), config, batch_size=100, seed=0), 1)
    return batch


def test_train_batches_have_static_shapes(image_folder, config):
    source = open_source(f"folder:{image_folder}")
    assert train_batches(source, config, batch_size=8, seed=0).element_spec == {
        "image": tf.TensorSpec((8, 24, 24, 3), tf.float32),
        "label": tf.TensorSpec((8, 2), tf.float32),
        "id": tf.TensorSpec((8,), tf.int64),
        "position": tf.TensorSpec((8,), tf.int64),
    }


# Digits resume below, with all augmentations.
ENCODED = pytest.mark.parametrize(
    "source",
    ["folder", "records", pytest.param("digits", marks=pytest.mark.slow)],
    indirect=True,
)


@ENCODED
def test_batches_are_those_of_an_interrupted_run_and_of_other_threads(source, config):
    """Here from the fourth batch on: within the first epoch, or within a later one."""
    whole = train_batches(source, config, batch_size=6, seed=4)
    whole = take(with_threads(whole, 1), 9)
    start = int(whole[3]["position"][-1])
    rest = train_batches(source, config, batch_size=6, seed=4, start=start)
    assert_identical(take(with_threads(rest, 8), 5), whole[4:])


@pytest.mark.parametrize(
    "source",
    ["records", *(pytest.param(name, marks=pytest.mark.slow) for name in ("folder", "digits"))],
    indirect=True,
)
def test_training_on_views_resumes_in_the_middle_of_an_image(source, config):
    config.views = 3
    whole = take(train_batches(source, config, batch_size=7, seed=4), 9)
    # The last of these batches that begins with an image that the one before it ended with.
    done = max(i for i in range(1, 8) if whole[i]["id"][0] == whole[i - 1]["id"][-1])
    start = int(whole[done - 1]["position"][-1])
    rest = train_batches(source, config, batch_size=7, seed=4, start=start)
    assert_identical(take(rest, 9 - done), whole[done:])


def test_seeds_change_the_batches(config):
    first, other = (
        take(train_batches(open_source("digits"), config, batch_size=6, seed=seed), 1)[0]
        for seed in (0, 1)
    )
    assert (first["id"] != other["id"]).any()


def test_an_example_is_augmented_differently_in_each_epoch(few_digits, config):
    config.cutmix_alpha = 0.0
    batches = take(train_batches(few_digits, config, batch_size=40, seed=0), 3)
    views = np.stack([batch["image"][np.argsort(batch["id"])] for batch in batches])
    for one, other in itertools.combinations(views, 2):
        assert (one != other).any(axis=(1, 2, 3)).mean() > 0.9  # few boxes are drawn twice


def equal_views(views):
    """The share of the pairs among three views of an image, one after the other, that are equal."""
    return np.mean(
        [
            (one == other).all()
            for first in range(0, len(views), 3)
            for one, other in itertools.combinations(views[first : first + 3], 2)
        ]
    )


@pytest.mark.parametrize("dataset", ["digits", "folder"])
def test_the_views_of_an_image_are_cropped_differently(image_folder, config, dataset):
    source = open_source(dataset if dataset == "digits" else f"folder:{image_folder}")
    config.views, config.cutmix_alpha, config.flip = 3, 0.0, False
    batches = take(train_batches(source, config, batch_size=6, seed=0), 3)
    assert equal_views([image for batch in batches for image in batch["image"]]) == 0


def augmented(config, images):
    """The first digits in three views each, after all that follows the crop."""
    digits = open_source("digits").images["train"]
    config.views, zero = 3, tf.constant(0, tf.int64)
    seeds = [
        (i, _view_seed(0, {"id": i, "epoch": zero, "view": view}, 3))
        for i in tf.range(images, dtype=tf.int64)
        for view in tf.range(3, dtype=tf.int64)
    ]
    return [_augment(digits[i], seed, config, (8, 8)).numpy() for i, seed in seeds]


@pytest.fixture(scope="module")
def rand_augmented():
    """36 views, without and with RandAugment."""
    config = DataConfig(image_size=(24, 24), flip=False)
    return [
        augmented(dataclasses.replace(config, rand_augment=changed), images=12)
        for changed in (False, True)
    ]


@pytest.mark.parametrize(
    ("settings", "equal"),
    [
        ({"flip": True}, 0.8),  # half of the views are mirrored, so half of the pairs are equal
        ({"color_jitter": 0.4}, 0),
        ({"erasing": 1.0}, 0),
    ],
    ids=str,
)
def test_the_views_of_an_image_differ_in_each_augmentation(config, settings, equal):
    config.flip = False
    for name, value in settings.items():
        setattr(config, name, value)
    assert equal_views(augmented(config, images=6)) <= equal


def test_the_views_of_an_image_differ_in_rand_augment(rand_augmented):
    assert equal_views(rand_augmented[1]) <= 0.3  # a quarter draws no operation


def test_a_single_view_is_cropped_by_the_seed_of_its_example(config):
    """Written out, since runs that were begun must be carried on with what they were begun with."""
    source = open_source("digits")
    config.flip, config.cutmix_alpha = False, 0.0
    for batch in take(train_batches(source, config, batch_size=4, seed=9, start=1437), 2):
        levels = 255 * (batch["image"] * config.std + config.mean)
        for image, example in zip(levels, batch["id"], strict=True):
            box = crop_box(8, 8, example_seed(9, 1, example), config.crop_scale, config.crop_aspect)
            top, left, height, width = box.numpy()
            scan = source.images["train"][example]
            crop = resize(scan[top : top + height, left : left + width], config.image_size)
            # A level where one lies half-way, and the roundings of normalising, there and back.
            np.testing.assert_allclose(image, crop, rtol=0, atol=1 + 8 * 255 * EPS)


def test_batches_that_begin_with_views_of_one_image_are_mixed_differently(image_folder, config):
    source = open_source(f"folder:{image_folder}")
    config.views = 4
    mixed = take(train_batches(source, config, batch_size=2, seed=0), 10)
    config.cutmix_alpha = 0.0
    plain = take(train_batches(source, config, batch_size=2, seed=0), 10)
    boxes = [
        (one["image"] != other["image"]).any(axis=(0, 3))
        for one, other in zip(mixed, plain, strict=True)
    ]
    for first, second in zip(range(0, 10, 2), range(1, 10, 2), strict=True):
        assert mixed[first]["id"][0] == mixed[second]["id"][0]
        assert (boxes[first] != boxes[second]).any()


def test_without_augmentation_the_images_are_those_of_the_source(config):
    source = open_source("digits")
    config.image_size, config.crop_scale, config.crop_aspect = (8, 8), (1.0, 1.0), (1.0, 1.0)
    config.flip, config.cutmix_alpha = False, 0.0
    (batch,) = take(train_batches(source, config, batch_size=32, seed=0), 1)
    images = source.images["train"].numpy()[batch["id"]]
    np.testing.assert_array_equal(batch["image"], normalise(images, config.mean, config.std))
    labels = source.labels["train"].numpy()[batch["id"]]
    np.testing.assert_array_equal(batch["label"], np.eye(10)[labels])


@pytest.mark.parametrize(
    "size", [(2, 3), (1, 9), pytest.param((5, 3), marks=pytest.mark.slow)], ids=str
)
def test_images_in_memory_may_be_larger_than_what_the_model_sees(size):
    """Crops of 8 x 8 pixels, more than four times as high as (1, 9)."""
    config = DataConfig(image_size=size, flip=False, crop_scale=(1.0, 1.0), cutmix_alpha=0.0)
    (batch,) = take(train_batches(open_source("digits"), config, batch_size=4, seed=0), 1)
    digits = open_source("digits").images["train"].numpy()
    for image, number in zip(batch["image"], batch["id"], strict=True):
        expected = resize(digits[number], size)
        levels = (image * config.std + config.mean) * 255
        np.testing.assert_allclose(levels, expected, atol=1.001)  # halves may be rounded otherwise


def test_flips_and_crops_follow_the_configuration(config):
    source = open_source("digits")
    config.image_size, config.cutmix_alpha = (8, 8), 0.0
    config.crop_scale, config.crop_aspect = (1.0, 1.0), (1.0, 1.0)
    (batch,) = take(train_batches(source, config, batch_size=200, seed=0), 1)
    images = normalise(source.images["train"].numpy()[batch["id"]], config.mean, config.std).numpy()
    straight = (batch["image"] == images).all(axis=(1, 2, 3))
    mirrored = (batch["image"] == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (straight | mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_cutmix_mixes_labels_as_the_batch_was_reversed(config, plain):
    mixed = take(train_batches(open_source("digits"), config, batch_size=25, seed=0), 4)
    shares = []
    for number, batch in enumerate(mixed):
        other = {key: part[25 * number : 25 * number + 25] for key, part in plain.items()}
        np.testing.assert_array_equal(batch["id"], other["id"])
        changed = (batch["image"] != other["image"]).any(axis=(0, 3)).mean()
        expected = (1 - changed) * other["label"] + changed * other["label"][::-1]
        # The share is one rounding, what is left of it one, and so are two products and their sum.
        assert_close(batch["label"], expected, roundings=5, scale=1)
        shares.append(changed)
    assert len(set(shares)) == 4


def test_an_epoch_draws_full_batches_of_distinct_examples(few_digits, config):
    steps = steps_per_epoch(few_digits, 12)
    assert steps == 3
    batches = take(train_batches(few_digits, config, batch_size=12, seed=0), 2 * steps)
    for epoch in (batches[:steps], batches[steps:]):
        assert len(set(np.concatenate([batch["id"] for batch in epoch]))) == 36
    assert (batches[0]["id"] != batches[steps]["id"]).any()
    assert [int(batch["position"][-1]) for batch in batches] == list(range(12, 73, 12))


@pytest.mark.parametrize("batch_size", [0, 1438])
def test_a_batch_must_fit_the_training_split(config, batch_size):
    with pytest.raises(ValueError, match=f"between 1 and the 1437 .* got {batch_size}"):
        train_batches(open_source("digits"), config, batch_size=batch_size, seed=0)


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_a_single_image_cannot_be_mixed(config, name):
    config.mixup_alpha = config.cutmix_alpha = 0.0
    setattr(config, name, 1.0)
    with pytest.raises(ValueError, match=r"--batch_size=2 or more, .*; or set --config\.data"):
        train_batches(open_source("digits"), config, batch_size=1, seed=0)


@pytest.mark.parametrize("views", [0, 1433])
def test_an_epoch_must_hold_the_views_of_an_image(config, views):
    config.views = views
    message = f"--config.data.views must be between 1 and the 1432 images .* got {views}"
    with pytest.raises(ValueError, match=message):
        train_batches(open_source("digits"), config, batch_size=8, seed=0)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        *((10, 1), (10, 7), (10, 99), (97, 13)),
        *(
            pytest.param(*some, marks=pytest.mark.slow)
            for some in ((10, 3), (10, 9), (10, 10), (1, 1))
        ),
    ],
)
def test_so_many_images_are_evenly_spaced(size, count):
    images, labels = tf.zeros((size, 2, 2, 3), tf.uint8), tf.range(size, dtype=tf.int64)
    names, images = tuple(map(str, range(size))), {"train": images[:0], "val": images}
    source = ArraySource("numbers", names, images, {"train": labels[:0], "val": labels})
    config = DataConfig(image_size=(2, 2), eval_crop=1.0)

    batches = list(evaluation_batches(source, "val", config, batch_size=4, cap=count))

    found = np.concatenate([batch["id"] for batch in batches])
    batch_size = min(4, size, count)
    assert len(found) == -(-min(size, count) // batch_size) * batch_size
    weights = np.concatenate([batch["weight"] for batch in batches])
    np.testing.assert_array_equal(weights, found >= 0)
    found = found[found >= 0]
    assert len(found) == min(size, count)
    assert found[0] == 0
    gaps = set(np.diff([*found, found[0] + size]))
    assert gaps <= {size // len(found), -(-size // len(found))}


@pytest.mark.parametrize(("batch_size", "steps"), [(100, 4), (90, 4), (10**12, 1)])
def test_evaluation_counts_every_example_once(config, batch_size, steps):
    source = open_source("digits")
    batches = evaluation_batches(source, "val", config, batch_size=batch_size)
    batch_size = min(batch_size, 360)  # no more than there are
    assert batches.element_spec == {
        "image": tf.TensorSpec((batch_size, 24, 24, 3), tf.float32),
        "label": tf.TensorSpec((batch_size,), tf.int64),
        "weight": tf.TensorSpec((batch_size,), tf.float32),
        "id": tf.TensorSpec((batch_size,), tf.int64),
    }
    batches = list(batches.as_numpy_iterator())
    assert len(batches) == steps
    flat = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    real = flat["weight"] == 1
    np.testing.assert_array_equal(flat["id"][real], np.arange(360))
    np.testing.assert_array_equal(flat["label"][real], source.labels["val"])
    assert (flat["weight"][~real] == 0).all()
    assert (flat["id"][~real] == -1).all()
    assert (flat["image"][~real] == 0).all()


def test_evaluation_sees_what_prediction_sees(image_folder, config):
    config.image_size = (24, 32)
    source = open_source(f"folder:{image_folder}", holdout=0.5)
    for batch in evaluation_batches(source, "val", config, batch_size=3).as_numpy_iterator():
        for image, example in zip(batch["image"], batch["id"], strict=True):
            pixels = source.load(source.describe("val", int(example)))
            np.testing.assert_array_equal(image, preprocess_evaluation(pixels, config))


def test_unreadable_images_are_skipped_named_and_counted(make_folder, config, caplog):
    root = make_folder()
    source = open_source(f"folder:{root}", holdout=0.2)
    listed = [source.describe("train", example) for example in range(source.sizes["train"])]
    cut_short, text, removed = (os.path.join(root, listed[i]) for i in (0, 5, 9))
    with open(cut_short, "r+b") as file:
        file.truncate(300)
    with open(text, "w") as file:
        file.write("not an image")
    os.remove(removed)
    report, config.cutmix_alpha = UnreadableImages(), 0.0
    size = source.sizes["train"]
    batches = train_batches(source, config, batch_size=1, seed=0, unreadable=report)
    batches = take(batches, 2 * (size - 3) + 1)
    ids = [int(batch["id"][0]) for batch in batches[: 2 * (size - 3)]]
    assert sorted(ids) == sorted([i for i in range(size) if i not in (0, 5, 9)] * 2)
    assert sorted(report.positions) == sorted([cut_short, text, removed])
    assert report.counts[0] == report.counts[1] == 3
    assert sum("Skipping" in record.getMessage() for record in caplog.records) == 3
    assert report.error is None


def test_each_view_of_an_unreadable_image_is_skipped(make_folder, config, caplog):
    root = make_folder()
    source = open_source(f"folder:{root}", holdout=0.2)
    size = source.sizes["train"]
    drawn = [int(e["id"]) for e in source.train_stream(0, views=3).take(2 * size)]
    broken = source.describe("train", drawn[4])  # the second image of the first epoch
    os.remove(broken)
    report, config.cutmix_alpha, config.views = UnreadableImages(), 0.0, 3
    batches = take(train_batches(source, config, batch_size=1, seed=0, unreadable=report), size)
    ids = [int(batch["id"][0]) for batch in batches]
    assert ids == [example for example in drawn if example != drawn[4]][:size]
    assert report.positions == {broken: 3}
    assert report.counts[0] == 3
    assert sum("Skipping" in record.getMessage() for record in caplog.records) == 1


def test_unreadable_images_end_training_when_asked(make_folder, config):
    root = make_folder()
    break_file(root / "china" / "03.jpg")
    source = open_source(f"folder:{root}", holdout=0.01)
    config.skip_unreadable = False
    report = UnreadableImages()
    batches = train_batches(source, config, batch_size=4, seed=0, unreadable=report)
    with (
        pytest.raises(UnreadableImageError, match=r"china/03\.jpg cannot be read") as error,
        report.plain_errors(),
    ):
        take(batches, 6)
    assert "\n" not in str(error.value)


def test_unreadable_images_always_end_evaluation(make_folder, config):
    root = make_folder()
    source = open_source(f"folder:{root}", holdout=0.5)
    broken = source.describe("val", 2)
    with open(broken, "r+b") as file:
        file.truncate(300)
    report = UnreadableImages()
    batches = evaluation_batches(source, "val", config, batch_size=4, unreadable=report)
    with pytest.raises(UnreadableImageError, match=broken), report.plain_errors():
        take(batches, 3)


@pytest.mark.parametrize("views", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_training_on_mostly_unreadable_images_ends(make_folder, config, views):
    root, config.views = make_folder(), views
    for file in (root / "china").iterdir():
        break_file(file)
    for file in sorted((root / "flower").iterdir())[:3]:
        break_file(file)
    source = open_source(f"folder:{root}", holdout=0.1)
    report = UnreadableImages()
    batches = train_batches(source, config, batch_size=4, seed=0, unreadable=report)
    with pytest.raises(UnreadableImageError, match="More than half"), report.plain_errors():
        take(batches, 20)


@pytest.mark.parametrize("views", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_nothing_but_unreadable_images_ends_too(make_folder, config, views):
    root, config.views = make_folder(), views
    for file in root.rglob("*.*"):
        break_file(file)
    source = open_source(f"folder:{root}", holdout=0.1)
    report = UnreadableImages()
    batches = train_batches(source, config, batch_size=4, seed=0, unreadable=report)
    with pytest.raises(UnreadableImageError, match="More than half"), report.plain_errors():
        take(batches, 1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_outside_the_classes_is_an_error_that_names_the_example(
    store_records, config, split
):
    source = open_source("squares", data_dir=store_records(labels={4: -1}))
    report = UnreadableImages()
    if split == "train":
        batches = train_batches(source, config, batch_size=8, seed=0, unreadable=report)
    else:
        batches = evaluation_batches(source, split, config, batch_size=8, unreadable=report)
    message = (
        r"record \d of squares-(train|test)\.tfrecord-.* has the label -1, but there are 3 classes"
    )
    with pytest.raises(UnreadableImageError, match=message), report.plain_errors():
        take(batches, 5)


def everything(config):
    """Every augmentation at once, often enough to be seen."""
    config.rand_augment, config.color_jitter, config.erasing = True, 0.3, 0.5
    config.mixup_alpha, config.cutmix_alpha = 0.8, 1.0
    return config


@pytest.mark.parametrize(
    ("source", "mode"),
    [
        ("digits", "element"),
        pytest.param("digits", "batch", marks=pytest.mark.slow),
        pytest.param("folder", "batch", marks=pytest.mark.slow),
        pytest.param("folder", "element", marks=pytest.mark.slow),
        pytest.param("records", "batch", marks=pytest.mark.slow),
        pytest.param("records", "element", marks=pytest.mark.slow),
    ],
    indirect=["source"],
)
def test_all_augmentations_together_resume_and_do_not_depend_on_threads(source, config, mode):
    config = everything(config)
    config.mix_mode = mode
    whole = take(with_threads(train_batches(source, config, batch_size=6, seed=4), 1), 6)
    start = int(whole[1]["position"][-1])
    rest = train_batches(source, config, batch_size=6, seed=4, start=start)
    assert_identical(take(with_threads(rest, 8), 4), whole[2:])
    for batch in whole:
        assert np.isfinite(batch["image"]).all()
        # A share and what is left of it: two roundings, and one for each class that is added.
        classes = batch["label"].shape[1]
        assert_close(batch["label"].sum(axis=1), np.ones(6), roundings=2 + classes)


def test_erased_boxes_are_noise_in_the_normalised_image(config, plain):
    config.cutmix_alpha, config.erasing = 0.0, 1.0
    (erased,) = take(train_batches(open_source("digits"), config, batch_size=100, seed=0), 1)

    changed = (plain["image"] != erased["image"]).any(axis=-1)

    assert (changed.mean(axis=(1, 2)) < 0.4).all()
    assert changed.any(axis=(1, 2)).mean() > 0.9
    noise = erased["image"][changed].ravel()
    deviation = 5 / np.sqrt(len(noise))  # of a mean five, of a standard deviation seven of its own
    assert abs(noise.mean()) < deviation
    assert abs(noise.std() - 1) < deviation


def test_rand_augment_changes_most_images_and_not_all(rand_augmented):
    share = np.mean([(one != other).any() for one, other in zip(*rand_augmented, strict=True)])

    assert 0.5 < share < 0.8  # three of four draw an operation; some change nothing, as of grey


def test_color_jitter_changes_the_levels_before_normalising(config, plain):
    config.cutmix_alpha, config.color_jitter = 0.0, 0.4
    (changed,) = take(train_batches(open_source("digits"), config, batch_size=8, seed=0), 1)
    plain = {key: part[:8] for key, part in plain.items()}

    plain, levels = (
        np.round(255 * (batch["image"] * config.std + config.mean)) for batch in (plain, changed)
    )
    for image, jittered, example in zip(plain, levels, changed["id"], strict=True):
        expected = color_jitter(image.astype(np.uint8), example_seed(0, 0, example), 0.4)
        np.testing.assert_array_equal(jittered, expected)
        assert (jittered != image).any()


def test_mixup_blends_normalised_images_by_their_labels(config, plain):
    config.cutmix_alpha, config.mixup_alpha = 0.0, 0.8
    (mixed,) = take(train_batches(open_source("digits"), config, batch_size=100, seed=0), 1)

    kept = (mixed["label"] * plain["label"]).sum(axis=1)
    other = (plain["label"] != plain["label"][::-1]).any(axis=1)
    kept = float(kept[other][0])
    images = plain["image"].astype("float64")
    expected = kept * images + (1 - kept) * images[::-1]
    # Normalising and what is left of the share have one each, and so have two products and a sum.
    assert_close(mixed["image"], expected, roundings=5, scale=np.abs(images).max())
