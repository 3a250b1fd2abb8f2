import collections
import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from pit_keras.data.class_folders import encoded, list_folder, write_class_folder
from pit_keras.data.labelled_images import open_source


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(paths, root):
    return [os.path.relpath(path, root) for path in paths]


def test_train_and_val_folders(tmp_path):
    root = touch(tmp_path, "val/cat/3.png", "val/ant/9.jpg", "train/cat/1.jpg", "train/ant/2.jpg")
    touch(root, "train/ant/1.PNG", "test/bee/1.jpg")
    classes, paths, labels = list_folder(root, holdout=0.5)
    assert classes == ("ant", "cat")
    assert names(paths["train"], root) == ["train/ant/1.PNG", "train/ant/2.jpg", "train/cat/1.jpg"]
    assert names(paths["val"], root) == ["val/ant/9.jpg", "val/cat/3.png"]
    assert labels == {"train": [0, 0, 1], "val": [0, 1]}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "VAL"),
        ("training", "Validation"),
        ("train_images", "valid-images"),
        ("train", "dev"),
    ],
)
def test_splits_have_several_names_in_any_case(tmp_path, train, val):
    touch(tmp_path, f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{val}/a/2.jpg", f"{val}/b/2.jpg")
    touch(tmp_path, "test/a/3.jpg")
    left_out = collections.Counter()
    classes, paths, _ = list_folder(tmp_path, 0.5, left_out)
    assert classes == ("a", "b")
    assert names(paths["train"], tmp_path) == [f"{train}/a/1.jpg", f"{train}/b/1.jpg"]
    assert names(paths["val"], tmp_path) == [f"{val}/a/2.jpg", f"{val}/b/2.jpg"]
    assert left_out == {"folder 'test'": 1}


def test_files_are_told_by_their_content_where_their_ending_says_nothing(tmp_path):
    for name in "ab":
        touch(
            tmp_path, *(f"{name}/{file}" for file in ("1.jpg", "x.txt", "Thumbs.db", ".DS_Store"))
        )
        touch(tmp_path, f"{name}/@eaDir/1.jpg", f"{name}/.ipynb_checkpoints/1.jpg")
        for file, kind in (("2.jfif", "JPEG"), ("3", "PNG"), ("4.webp", "WEBP"), ("5.bmp", "BMP")):
            Image.new("RGB", (2, 2)).save(tmp_path / name / file, kind)
    touch(tmp_path, "__MACOSX/a/1.jpg", "beside.jpg", "notes.txt", "a/gone.tif/1.png")
    os.mkfifo(tmp_path / "a/pipe")
    left_out = collections.Counter()
    classes, paths, _ = list_folder(tmp_path, None, left_out)
    assert classes == ("a", "b")
    found = ["1.jpg", "2.jfif", "3"]
    assert names(paths["train"], tmp_path) == [
        *(f"a/{file}" for file in (*found, "gone.tif/1.png")),
        *(f"b/{file}" for file in found),
    ]
    counts = {".bmp": 2, ".txt": 2, ".webp": 2, "files without an ending": 1}
    assert left_out == {**counts, "images in no class folder": 1}


def test_what_looks_equal_is_the_same_class(tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    files = [f"{number}.jpg" for number in range(30)]
    touch(tmp_path / "one", *(f"{nfc}/{file}" for file in files), "x/1.jpg", "x/2.jpg")
    touch(tmp_path / "two", *(f"{nfd}/{file}" for file in files), "x/1.jpg", "x/2.jpg")
    found = [list_folder(tmp_path / root, 0.3) for root in ("one", "two")]
    assert found[0][0] == found[1][0] == (nfc, "x")
    one, two = ([os.path.basename(path) for path in paths["val"]] for _, paths, _ in found)
    assert one == two
    touch(tmp_path / "one", f"{nfd}/1.jpg")
    with pytest.raises(ValueError, match=r"several folders that read .*'cafe\\u0301'"):
        list_folder(tmp_path / "one", 0.3)


def test_a_single_class_will_do_where_nothing_is_held_out(tmp_path):
    assert list_folder(touch(tmp_path, "a/1.jpg"), None)[0] == ("a",)


def test_only_visible_images_count_at_any_depth(tmp_path):
    kept = ["a/1.jpg", "a/2.JPEG", "a/deep/er/3.Png", "b/4.jpeg", "b/5.jpg"]
    touch(tmp_path, *kept, "a/.hidden.jpg", "a/.thumbs/6.jpg", "a/notes.txt", "a/7.gif")
    touch(tmp_path, ".cache/8.jpg", "readme.jpg")
    _, paths, _ = list_folder(tmp_path, holdout=0.3)
    assert sorted(names(paths["train"] + paths["val"], tmp_path)) == sorted(kept)


@pytest.mark.parametrize(
    ("holdout", "held_out"),
    [(0.1, (2, 1, 1)), (0.001, (1, 1, 1)), (0.25, (5, 2, 1)), (0.99, (19, 6, 1))],
)
def test_a_share_of_each_class_is_held_out(tmp_path, holdout, held_out):
    counts = (20, 7, 2)
    for name, count in zip("abc", counts, strict=True):
        touch(tmp_path, *(f"{name}/{number}.jpg" for number in range(count)))
    _, paths, labels = list_folder(tmp_path, holdout)
    assert tuple(labels["val"].count(label) for label in range(3)) == held_out
    assert tuple(labels["train"].count(label) for label in range(3)) == tuple(
        count - held for count, held in zip(counts, held_out, strict=True)
    )
    assert not set(paths["train"]) & set(paths["val"])


def test_folds_hold_out_every_image_once(tmp_path):
    counts = {"a": 20, "b": 7, "c": 3}
    touch(tmp_path, *(f"{name}/{i}.jpg" for name, count in counts.items() for i in range(count)))
    everything = list_folder(tmp_path, None)[1]["train"]
    held_out = []
    for number in (1, 2, 3):
        _, paths, labels = list_folder(tmp_path, (number, 3))
        assert sorted(paths["train"] + paths["val"]) == everything
        for label, count in enumerate(counts.values()):
            assert labels["val"].count(label) in (count // 3, count // 3 + 1)
        held_out += paths["val"]
    assert sorted(held_out) == everything


def test_what_cannot_be_divided_into_folds(tmp_path):
    touch(tmp_path, *(f"a/{number}.jpg" for number in range(5)), "b/0.jpg", "b/1.jpg")
    with pytest.raises(ValueError, match=r"has fewer images than 3 folds for 'b'\.$"):
        list_folder(tmp_path, (1, 3))
    split = touch(
        tmp_path / "split", "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"
    )
    with pytest.raises(ValueError, match="has its own validation images; folds need"):
        list_folder(split, (1, 2))
    with pytest.raises(ValueError, match="Folds need folder:PATH with PATH/CLASS"):
        open_source("digits", holdout=(1, 2))


def test_the_held_out_share_depends_on_the_names_alone(tmp_path):
    files = [f"{name}/{number}.jpg" for name in "ab" for number in range(30)]
    one = touch(tmp_path / "one", *files)
    two = touch(tmp_path / "two", *reversed(files))
    first, second = (names(list_folder(root, 0.2)[1]["val"], root) for root in (one, two))
    assert first == second
    held_out = [int(name[2:-4]) for name in first]
    assert held_out[:6] != list(range(6))
    assert held_out[:6] != held_out[6:]


def test_the_held_out_files_stay_the_same(tmp_path):
    """Written out, since what was trained before must be evaluated on the same files."""
    numbers = [f"{n:02d}.jpg" if n < 15 else f"deep/{n:02d}.jpg" for n in range(20)]
    files = {f"{c}/{n}" for c in "ab" for n in numbers}
    _, paths, _ = list_folder(touch(tmp_path, *files), 0.2)
    held_out = "a/03 a/04 a/05 a/deep/17 b/05 b/08 b/deep/16 b/deep/18"
    assert names(paths["val"], tmp_path) == [f"{name}.jpg" for name in held_out.split()]
    assert names(paths["train"], tmp_path) == sorted(files - set(names(paths["val"], tmp_path)))


def test_names_are_encoded_as_the_system_gave_them(tmp_path):
    contents = [b"plain.jpg", "é ü.jpg".encode(), b"not\xffunicode.jpg", b"two\nlines.jpg"]
    for name in "ab":
        (tmp_path / name).mkdir()
        for content in contents:
            open(os.path.join(os.fsencode(tmp_path / name), content), "w").close()
    _, paths, _ = list_folder(tmp_path, 0.25)
    for own in paths.values():
        assert encoded(own) == [os.fsencode(path) for path in own]
    assert sum(map(len, paths.values())) == 8
    assert encoded(()) == []


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (None, FileNotFoundError, r"no folder .*/data"),
        ((), ValueError, r"holds no class folders; expected .*/data/CLASS/\*\.jpg"),
        (("1.jpg", "2.jpg"), ValueError, "holds no class folders"),
        (("a/1.jpg", "a/2.jpg"), ValueError, "only the class a;"),
        (("a/1.jpg", "b/x.txt", "c/.2.jpg"), ValueError, "No PNG or JPEG .* for 'b', 'c'"),
        (("a/1.jpg", "a/2.jpg", "b/1.jpg"), ValueError, "single image for 'b', .* val/ folder"),
        (
            ("a/1.jpg", "a/2.jpg", "b/x.bmp", "b/y"),
            ValueError,
            "hold 1 .bmp, 1 files without an end",
        ),
        (("train/a/1.jpg", "train/b/1.jpg"), ValueError, "has no val/; it needs"),
        (("Training/a/1.jpg", "Testing/a/1.jpg"), ValueError, "no val/.*'Testing', 'Training'"),
        (("seg_train/a/1.jpg", "seg_test/a/1.jpg"), ValueError, "no val/.*'seg_test'"),
        (("val_1/a/1.jpg", "val_2/a/1.jpg"), ValueError, "no train/"),
        (("train/a/1.jpg", "Val/a/1.jpg", "dev/a/1.jpg"), ValueError, "several folders for val/"),
        (("train/a/1.jpg", "test/a/1.jpg"), ValueError, "has no val/; it needs"),
        (("val/a/1.jpg", "val/b/1.jpg"), ValueError, "has no train/; it needs"),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/c/1.jpg"),
            ValueError,
            "/train lacks the class folders 'c' of .*/val",
        ),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.txt"),
            ValueError,
            "/val for 'b'",
        ),
    ],
)
def test_a_wrong_layout_is_an_error(tmp_path, files, error, message):
    root = tmp_path / "data"
    if files is not None:
        root.mkdir()
        touch(root, *files)
    with pytest.raises(error, match=message):
        list_folder(root, 0.1)


def test_a_file_is_not_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"1\.jpg is a file"):
        list_folder(touch(tmp_path, "1.jpg") / "1.jpg", 0.1)


def test_nothing_is_held_out_on_request_so_that_one_image_a_class_will_do(tmp_path):
    root = touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg")
    _, paths, labels = list_folder(root, holdout=None)
    assert names(paths["train"], root) == ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    assert labels == {"train": [0, 1, 1], "val": []}


@pytest.mark.parametrize("holdout", [0, 1, -0.1, 1.5])
def test_the_held_out_share_must_be_a_share(tmp_path, holdout):
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    with pytest.raises(ValueError, match="between 0 and 1"):
        open_source(f"folder:{tmp_path}", holdout=holdout)


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "car/1.jpg", "car/2.jpg")
    assert list_folder(tmp_path, 0.5)[0] == ("car", "train")


def test_the_first_images_of_each_class_are_written_and_read_again(tmp_path):
    digits = open_source("digits")
    paths = write_class_folder(digits, "val", tmp_path / "new", per_class=3)

    labels = digits.labels["val"].numpy()
    expected = [i for i, label in enumerate(labels) if (labels[:i] == label).sum() < 3]
    assert paths == [tmp_path / f"new/{labels[i]}/{i:06d}.png" for i in expected]
    for index, path in zip(expected, paths, strict=True):
        pixels = np.asarray(Image.open(path))
        np.testing.assert_array_equal(pixels, digits.images["val"][index].numpy())
    source = open_source(f"folder:{tmp_path / 'new'}", holdout=None)
    assert source.class_names == digits.class_names
    assert source.sizes == {"train": 30, "val": 0}


def test_a_class_with_fewer_images_gives_all_of_them(tmp_path):
    digits = open_source("digits")
    assert len(write_class_folder(digits, "val", tmp_path, per_class=1000)) == 360


@pytest.mark.parametrize("name", ["a/b", "..", "", "/etc"])
def test_a_class_whose_name_is_no_folder_is_refused(tmp_path, name):
    digits = open_source("digits")
    odd = dataclasses.replace(digits, class_names=(*digits.class_names[:9], name))
    with pytest.raises(ValueError, match=r"The class '.*' cannot be the name"):
        write_class_folder(odd, "val", tmp_path / "new", per_class=1)
    assert not list(tmp_path.rglob("*.png"))
