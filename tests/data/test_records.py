import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from pit_keras.data.labelled_images import open_source
from pit_keras.data.records import RecordSplit, open_records


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
    unsplit_squares, holdout, held_out
):
    source = open_source("squares", data_dir=unsplit_squares, holdout=holdout)
    assert source.sizes == {"train": 40 - held_out, "val": held_out}
    ids = {split: {int(e["id"]) for e in source.scan(split)} for split in source.sizes}
    assert ids["train"] | ids["val"] == set(range(40))
    assert ids["val"] != set(range(held_out)) or held_out == 39


def test_nothing_is_held_out_on_request(unsplit_squares):
    source = open_source("squares", data_dir=unsplit_squares, holdout=None)
    assert source.sizes == {"train": 40, "val": 0}
    assert len(list(source.scan("train"))) == 40


def test_a_data_set_for_testing_alone_is_opened_on_request(store_records):
    data_dir = store_records(sizes={"test": 12})
    with pytest.raises(ValueError, match="squares has no train split; it has test"):
        open_source("squares", data_dir=data_dir)
    source = open_records("squares", data_dir=data_dir, only="test")
    assert source.sizes == {"train": 0, "val": 12}
    assert sorted(int(element["id"]) for element in source.scan("val")) == list(range(12))
    with pytest.raises(ValueError, match="squares has no validation split; it has test"):
        open_records("squares", data_dir=data_dir, only="validation")


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


@pytest.mark.parametrize("holdout", [pytest.param(None, marks=pytest.mark.slow), 0.2])
def test_an_epoch_of_views_draws_from_all_records_alike(unsplit_squares, holdout, monkeypatch):
    """Also where the buffer holds few records, and so the first of each file leave it first."""
    monkeypatch.setattr("pit_keras.data.records.SHUFFLE_BUFFER", 2)
    source = open_source("squares", data_dir=unsplit_squares, holdout=holdout)
    size, epochs = source.sizes["train"], 60
    stream = source.train_stream(0, views=4).take(epochs * size)

    drawn = np.bincount([int(element["id"]) for element in stream], minlength=40) / 4

    expected = np.zeros(40)
    expected[[int(element["id"]) for element in source.scan("train")]] = epochs / 4
    np.testing.assert_allclose(drawn, expected, atol=12.1)  # 3.6 standard deviations
    assert (drawn[expected == 0] == 0).all()


def test_records_of_many_files_are_interleaved_in_the_given_order(tmp_path):
    files = [str(tmp_path / f"{number:02d}") for number in range(40)]
    for file in files:
        with tf.io.TFRecordWriter(file) as writer:
            writer.write("first")
            writer.write("second")
    split = RecordSplit(tuple(files), (2,) * 40, range(80))
    backwards = [int(record_id) for record_id, _ in split.records(file_order=tf.range(39, -1, -1))]
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


def test_a_data_set_that_is_not_prepared_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match=f"not prepared .*; run `tfds build mnist --data_dir={tmp_path}`"
    ):
        open_source("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("change", ["missing", "empty"])
def test_an_incomplete_data_set_is_an_error(store_records, change):
    folder = store_records()
    files = sorted(folder.glob("squares/1.0.0/squares-t*.tfrecord-*"))
    assert len(files) == 8
    for file in files[2:5]:  # two of test, one of train
        file.unlink()
        if change == "empty":
            file.touch()
    message = r"lacks 3 of its 8 files, .* first .*/squares-train.tfrecord-00000-of"
    with pytest.raises(ValueError, match=message) as error:
        open_source("squares", data_dir=folder)
    assert "\n" not in str(error.value)


def test_a_file_that_was_stored_without_records_is_not_missing(store_records):
    folder = store_records() / "squares" / "1.0.0"
    content = json.loads((folder / "dataset_info.json").read_text())
    (train,) = (split for split in content["splits"] if split["name"] == "train")
    removed = int(train["shardLengths"][1])
    train["shardLengths"][1] = "0"
    (folder / "dataset_info.json").write_text(json.dumps(content))
    (folder / "squares-train.tfrecord-00001-of-00004").write_bytes(b"")
    source = open_source("squares", data_dir=folder.parent.parent)
    assert len(list(source.scan("train"))) == source.sizes["train"] == 40 - removed


def test_files_of_a_split_that_is_not_used_may_be_missing(store_records):
    folder = store_records(sizes={"train": 20, "validation": 8, "test": 8})
    for file in folder.glob("squares/1.0.0/squares-test.tfrecord-*"):
        file.unlink()
    assert open_source("squares", data_dir=folder).sizes == {"train": 20, "val": 8}


def test_first_batches_are_from_many_files_in_another_order_each_epoch(store_records, monkeypatch):
    """With a buffer that is much smaller than the data: memory is bounded."""
    monkeypatch.setattr("pit_keras.data.records.SHUFFLE_BUFFER", 32)
    folder = store_records(sizes={"train": 400}, files=40)
    source = open_source("squares", data_dir=folder, holdout=None)
    ids = np.array([int(element["id"]) for element in source.train_stream(0).take(1200)])
    files = np.searchsorted(source.splits["train"].first_ids, ids, side="right")
    starts = [files[start : start + 64] for start in (0, 400, 800)]
    for start in starts:
        assert len(set(start)) >= 16
        assert np.bincount(start).max() < 12
    assert set(starts[0]) != set(starts[1]) != set(starts[2])
    gaps = np.abs(np.diff(ids))
    assert (gaps == 1).mean() < 0.05  # hardly two neighbours of a file in succession


class Handmade(tfds.core.GeneratorBasedBuilder):
    """Levels that the user has downloaded by hand, as images with their number as the class."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    manual_dir should contain
    one file: levels.json.
    """

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        path = dl_manager.manual_dir / "levels.json"
        if not path.exists():
            raise AssertionError(f"Please download levels.json\nto {path}.")
        levels = json.loads(path.read_text())
        return {"train": self._generate_examples(levels), "test": self._generate_examples([9])}

    def _generate_examples(self, levels):
        for number, level in enumerate(levels):
            if level is None:  # what is on the disk now is what would be left by a kill
                root = self.data_path.parent.parent
                shutil.copytree(root, root.with_name("left"))
                raise KeyboardInterrupt
            image = np.full((4, 4, 3), level, np.uint8)
            yield number, {"image": image, "label": number % 10}


@pytest.fixture
def by_hand(tmp_path):
    """A folder of files as downloaded by hand: twenty levels."""
    (tmp_path / "by_hand").mkdir()
    (tmp_path / "by_hand" / "levels.json").write_text(json.dumps(list(range(20))))
    return tmp_path / "by_hand"


def test_a_data_set_is_prepared_from_files_downloaded_by_hand(tmp_path, by_hand, caplog):
    source = open_source("handmade", data_dir=tmp_path / "data", manual_dir=by_hand)
    assert source.sizes == {"train": 20, "val": 1}
    levels = [int(source.load(e["image"])[0, 0, 0]) for e in source.scan("train")]
    assert sorted(levels) == list(range(20))
    assert list((tmp_path / "data" / "handmade" / "1.0.0").glob("handmade-train.tfrecord-*"))
    shutil.rmtree(by_hand)
    assert "--manual_dir" not in caplog.text
    again = open_source("handmade", data_dir=tmp_path / "data", manual_dir=by_hand)
    assert again.sizes == source.sizes
    assert "--manual_dir is not needed" in caplog.text


def test_what_an_interrupted_preparation_leaves_is_not_taken_for_prepared(tmp_path, by_hand):
    (by_hand / "levels.json").write_text(json.dumps([*range(20), None]))
    with pytest.raises(KeyboardInterrupt):
        open_source("handmade", data_dir=tmp_path / "data", manual_dir=by_hand)
    assert any((tmp_path / "left").rglob("*"))
    (by_hand / "levels.json").write_text(json.dumps(list(range(20))))
    for folder in ("data", "left"):
        with pytest.raises(ValueError, match="not prepared"):
            open_source("handmade", data_dir=tmp_path / folder)
        source = open_source("handmade", data_dir=tmp_path / folder, manual_dir=by_hand)
        assert source.sizes == {"train": 20, "val": 1}


def test_how_to_prepare_a_data_set_of_files_downloaded_by_hand_is_said(tmp_path):
    message = (
        f"not prepared .* `tfds build handmade --data_dir={tmp_path} --manual_dir=FOLDER`, or "
        r".*--manual_dir=FOLDER\. .*: manual_dir should contain one file: levels\.json\."
    )
    with pytest.raises(ValueError, match=message) as error:
        open_source("handmade", data_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_a_manual_dir_without_the_files_is_an_error(tmp_path, by_hand):
    (by_hand / "levels.json").rename(by_hand / "other.json")
    message = r"from .*/by_hand: .*download levels\.json .*should contain one file: levels\.json"
    with pytest.raises(ValueError, match=message) as error:
        open_source("handmade", data_dir=tmp_path / "data", manual_dir=by_hand)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"no folder .*/nowhere\. .*: levels\.json"):
        open_source("handmade", data_dir=tmp_path / "data", manual_dir=tmp_path / "nowhere")


def test_a_manual_dir_must_be_of_use(tmp_path, by_hand):
    with pytest.raises(ValueError, match=r"run `tfds build mnist .*, which needs no --manual_dir"):
        open_source("mnist", data_dir=tmp_path / "data", manual_dir=by_hand)
    for dataset in ("digits", f"folder:{tmp_path}"):
        with pytest.raises(
            ValueError, match=f"--manual_dir={by_hand} is .* leave it out with {dataset}"
        ):
            open_source(dataset, manual_dir=by_hand)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "no data set 'mnits'; did you mean mnist"),
        ("digit", "did you mean digits"),
        ("qqqqqqqqqq", r"give digits, folder:PATH or a TFDS name\.$"),
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
