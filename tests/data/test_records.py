import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from pit_keras.data.records import RecordSplit
from pit_keras.data.sources import open_source


def test_images_come_encoded_and_load_as_rgb(squares):
    source = open_source("squares", data_dir=squares)
    assert source.is_encoded
    assert source.sizes == {"train": 40, "val": 10}
    assert source.class_names == ("low", "middle", "high")
    levels = []
    for element in source.scan("train"):
        image = source.load(element["image"]).numpy()
        assert image.shape[1:] == (8, 3)
        assert len(np.unique(image)) == 1
        number = int(image[0, 0, 0]) // 5
        assert element["label"] == number % 3
        levels.append(number)
    assert sorted(levels) == list(range(40))


def test_an_id_is_the_number_of_the_record_in_the_order_of_the_files(squares):
    source = open_source("squares", data_dir=squares)
    files = sorted(squares.glob("squares/1.0.0/squares-train.tfrecord-*"))
    assert len(files) == 4
    records = [r for file in files for r in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]
    for element in source.scan("train"):
        assert element["image"].numpy() in records[int(element["id"])]
    first_of_second_file = sum(1 for _ in tf.data.TFRecordDataset(str(files[0])))
    assert source.describe("train", first_of_second_file) == f"record 0 of {files[1].name}"
    assert source.describe("train", 39).endswith(files[3].name)


def test_the_validation_split_is_preferred_to_the_test_split(store_records):
    folder = store_records(sizes={"train": 20, "validation": 8, "test": 4})
    assert open_source("squares", data_dir=folder).sizes == {"train": 20, "val": 8}


@pytest.mark.parametrize(("holdout", "held_out"), [(0.2, 8), (0.01, 1), (0.99, 39)])
def test_a_share_of_train_is_held_out_where_there_is_no_other_split(
    store_records, holdout, held_out
):
    source = open_source("squares", data_dir=store_records(sizes={"train": 40}), holdout=holdout)
    assert source.sizes == {"train": 40 - held_out, "val": held_out}
    ids = {split: {int(e["id"]) for e in source.scan(split)} for split in source.sizes}
    assert ids["train"] | ids["val"] == set(range(40))
    assert ids["val"] != set(range(held_out)) or held_out == 39


def test_nothing_is_held_out_on_request(store_records):
    data_dir = store_records(sizes={"train": 40})
    source = open_source("squares", data_dir=data_dir, holdout=None)
    assert source.sizes == {"train": 40, "val": 0}
    assert len(list(source.scan("train"))) == 40


def test_the_order_does_not_depend_on_a_global_seed(squares):
    source = open_source("squares", data_dir=squares)
    orders = []
    for global_seed in (1, 2):
        tf.random.set_seed(global_seed)
        stream = source.train_stream(0).take(40)
        orders.append([int(element["id"]) for element in stream])
    assert orders[0] == orders[1]


def test_the_order_of_the_files_changes_with_the_epoch(squares, monkeypatch):
    monkeypatch.setattr("pit_keras.data.records.SHUFFLE_BUFFER", 1)  # leaves only the files'
    source = open_source("squares", data_dir=squares)
    ids = [int(element["id"]) for element in source.train_stream(0).take(120)]
    assert len({tuple(ids[start : start + 40]) for start in (0, 40, 80)}) > 1


def test_the_records_of_one_file_are_shuffled(squares):
    source = open_source("squares", data_dir=squares)
    ids = [int(element["id"]) for element in source.train_stream(0).take(40)]
    length = source.splits["train"].lengths[0]
    from_first_file = [example for example in ids if example < length]
    assert len(from_first_file) == length
    assert from_first_file != sorted(from_first_file)


@pytest.mark.parametrize("holdout", [None, 0.2])
def test_an_epoch_of_views_draws_from_all_records_alike(unsplit_squares, holdout, monkeypatch):
    """Also where the buffer holds few records, and so the first of each file leave it first."""
    monkeypatch.setattr("pit_keras.data.records.SHUFFLE_BUFFER", 2)
    source = open_source("squares", data_dir=unsplit_squares, holdout=holdout)
    size, epochs = source.sizes["train"], 120
    stream = source.train_stream(0, views=4).take(epochs * size)

    drawn = np.bincount([int(element["id"]) for element in stream], minlength=40) / 4

    expected = np.zeros(40)
    expected[[int(element["id"]) for element in source.scan("train")]] = epochs / 4
    np.testing.assert_allclose(drawn, expected, atol=17)  # 3.6 standard deviations
    assert (drawn[expected == 0] == 0).all()


def test_records_of_many_files_are_interleaved_in_the_given_order(tmp_path):
    files = [str(tmp_path / f"{number:02d}") for number in range(40)]
    for file in files:
        with tf.io.TFRecordWriter(file) as writer:
            writer.write("first")
            writer.write("second")
    split = RecordSplit(tuple(files), (2,) * 40, range(80))
    backwards = [int(record_id) for record_id, _ in split.records(tf.range(39, -1, -1))]
    assert sorted(backwards) == list(range(80))
    assert backwards[:17] == [*range(78, 46, -2), 79]  # sixteen files are read at once


def test_supervised_keys_decide_between_several_features(store_records, tmp_path):
    masks = {"mask": tfds.features.Image(shape=(2, 2, 1))}
    store_records(name="masked", features=masks)
    with pytest.raises(ValueError, match="must have one Image feature, it has several"):
        open_source("masked", data_dir=tmp_path)
    info = tmp_path / "masked" / "1.0.0" / "dataset_info.json"
    content = json.loads(info.read_text())
    keys = [{"featureKey": "picture"}, {"featureKey": "kind"}]
    info.write_text(json.dumps({**content, "supervisedKeys": {"tuple": {"items": keys}}}))
    source = open_source("masked", data_dir=tmp_path)
    assert source.image_key == "picture"
    assert source.load(next(iter(source.scan("val")))["image"]).shape[1] == 8


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"kind": tfds.features.Scalar(tf.int64)}, "one ClassLabel feature, it has none"),
        ({"other": tfds.features.ClassLabel(num_classes=2)}, r"several \(.*other.*\)"),
        ({"picture": tfds.features.Tensor(shape=(None, 8, 1), dtype=tf.uint8)}, "it has none"),
    ],
)
def test_one_image_and_one_label_are_needed(store_records, extra, message):
    folder = store_records(features=extra)
    with pytest.raises(ValueError, match=message):
        open_source("squares", data_dir=folder)


def test_another_file_format_is_an_error(store_records):
    folder = store_records(file_format="array_record")
    with pytest.raises(ValueError, match=r"stored as array_record; .*--file_format=tfrecord"):
        open_source("squares", data_dir=folder)


def test_a_train_split_is_needed(store_records):
    folder = store_records(sizes={"test": 10})
    with pytest.raises(ValueError, match="no train split; it has test"):
        open_source("squares", data_dir=folder)


def test_a_data_set_that_is_not_prepared_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match=f"not prepared .* `tfds build mnist --data_dir={tmp_path}`"
    ):
        open_source("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "no data set 'mnits': .*did you mean mnist"),
        ("digit", "did you mean digits"),
        ("qqqqqqqqqq", r"give digits, folder:PATH or the name of a TFDS data set\.$"),
        ("mnist:9.9.9", "cannot open the data set mnist:9.9.9: .*only: 3"),
        ("oxford_flowers102/nope", "cannot open .*nope not found"),
        ("Bad Name!", "cannot open the data set Bad Name!"),
    ],
)
def test_unknown_names_are_errors(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        open_source(name, data_dir=tmp_path)


def test_a_path_without_its_prefix_is_explained(tmp_path):
    with pytest.raises(ValueError, match=f"write folder:{tmp_path}"):
        open_source(str(tmp_path))
