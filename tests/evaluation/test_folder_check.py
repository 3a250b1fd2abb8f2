"""What is found in folders that were made dirty, and in what training refuses."""

import csv
import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from web_page import Page

from pit_keras.evaluation.folder_check import KINDS, SEVERITIES, check_folder
from pit_keras.evaluation.folder_page import MOST_SHOWN, PAGE, TABLE, check_page, write_check

ROOT = pathlib.Path(__file__).parents[2]


def picture(number, side=40):
    """A picture like no other one."""
    blocks = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


def write(root, *names, **options):
    """{name: number of its picture}; pictures of the same number are the same."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, **options).save(path)
    return root


def found(root, **options):
    """The findings but those on the small classes, (kind, file, other file)."""
    check = check_folder(root, **options)
    return [each[:3] for each in check.findings if each.kind != "few_images"]


@pytest.fixture
def clean(tmp_path):
    names = [f"{s}/{c}/{n}.png" for s in ("train", "val") for c in ("cat", "dog") for n in range(4)]
    return write(tmp_path / "photos", *names)


def test_a_clean_folder(clean):
    check = check_folder(clean)
    assert [each.kind for each in check.findings] == ["few_images"] * 2
    assert check.images == {"train": [4, 4], "val": [4, 4]}
    assert check.class_names == ("cat", "dog")
    assert check.sizes.tolist() == [[40, 40]] * 16


@pytest.mark.parametrize(
    ("copy", "kind"),
    [
        ("train/cat/x.png", "twice"),
        ("val/cat/x.png", "two_splits"),
        ("train/dog/x.png", "two_classes"),
        ("val/dog/x.png", "two_classes"),
    ],
)
@pytest.mark.parametrize("is_exact", [True, False], ids=["exact", "near"])
def test_copies(copy, kind, is_exact, clean):
    same = Image.open(clean / "train/cat/0.png")
    (same if is_exact else same.resize((60, 60))).save(clean / copy)
    (finding,) = [each for each in check_folder(clean).findings if each.kind != "few_images"]
    assert finding.kind == (kind if is_exact else f"near_{kind}")
    assert (finding.file, finding.other_file) == (copy, "train/cat/0.png")
    assert finding.class_name == copy.split("/")[1]
    assert finding.detail == ("in training and validation" if copy == "val/dog/x.png" else "")


def test_of_several_copies_the_worst_pair_is_reported(clean):
    for name in ("train/cat/x.png", "train/dog/x.png", "val/cat/x.png", "val/dog/x.png"):
        picture(0).save(clean / name)
    assert found(clean) == [
        ("two_classes", "train/dog/x.png", "train/cat/0.png"),
        ("two_classes", "val/cat/x.png", "train/dog/x.png"),
        ("two_classes", "val/dog/x.png", "train/cat/0.png"),
        ("twice", "train/cat/x.png", "train/cat/0.png"),
    ]


def test_single_files(clean):
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(20).save(clean / "train/cat/turned.jpg", exif=exif)
    picture(21, side=20).save(clean / "train/cat/tiny.png")
    picture(22).save(clean / "train/cat/misnamed.jpg", "PNG")
    picture(23).convert("L").save(clean / "train/cat/grey.png")
    picture(24).convert("CMYK").save(clean / "train/cat/cmyk.jpg")
    Image.merge("RGBA", [*picture(25).split(), picture(26).convert("L")]).save(
        clean / "train/cat/transparent.png"
    )
    (clean / "train/cat/broken.jpg").write_bytes(b"no image")
    picture(27).save(clean / "train/cat/other.webp")
    (clean / "train/cat/notes.txt").write_text("notes")
    assert found(clean) == [
        ("unreadable", "train/cat/broken.jpg", ""),
        ("rotated", "train/cat/turned.jpg", ""),
        ("other_format", "", ""),
        ("left_out", "", ""),
        ("misnamed", "train/cat/misnamed.jpg", ""),
        ("tiny", "train/cat/tiny.png", ""),
        ("grey", "train/cat/grey.png", ""),
        ("transparent", "train/cat/transparent.png", ""),
        ("cmyk", "train/cat/cmyk.jpg", ""),
    ]


def test_a_remark_on_most_images_is_one(tmp_path):
    write(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(5)), side=10)
    tiny = [each for each in check_folder(tmp_path).findings if each.kind == "tiny"]
    assert [(each.file, each.detail) for each in tiny] == [("", "10 of 10 images")]


def test_sizes_of_classes(tmp_path):
    write(tmp_path, *(f"a/{n}.png" for n in range(24)), *(f"b/{n}.png" for n in range(2)))
    findings = check_folder(tmp_path, holdout=0.1).findings
    assert [(each.kind, each.class_name, each.detail) for each in findings] == [
        ("few_images", "b", "1 image"),
        ("uneven", "a", "22 images, the smallest class has 1"),
    ]


def test_a_label_among_those_of_another_class(tmp_path):
    for number in range(60):
        bright = np.random.default_rng(number).integers(0, 60, (8, 8, 3)) + 190 * (number % 2)
        name = "dark" if number % 2 == 0 or number == 31 else "light"
        path = tmp_path / name / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(bright.astype("uint8")).resize((40, 40)).save(path)
    check = check_folder(tmp_path)
    (wrong,) = check.by_kind()["wrong_label"]
    assert wrong[1:] == ("dark/31.png", "", "dark", "10 of 10 neighbours are light")
    assert check.judged_by() == "edges and colours alone"


@pytest.mark.parametrize(
    ("names", "sentences"),
    [
        (["a/1.png"], ["holds only the class a", "has a single image for 'a'"]),
        (["a/1.png", "a/2.png"], ["holds only the class a"]),
        (["a/1.png", "a/2.png", "b/notes.txt"], ["No PNG or JPEG images in"]),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/2.png"],
            ["val holds only the class a", "val lacks the class folders 'b'"],
        ),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/2.png", "val/c/2.png"],
            ["train lacks the class folders 'c'", "val lacks the class folders 'b'"],
        ),
    ],
)
def test_what_training_refuses_is_reported_with_the_rest(names, sentences, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    picture(0).save(tmp_path / names[0])
    check = check_folder(tmp_path)
    refused = [each.detail for each in check.by_kind()["refused"]]
    assert len(refused) == len(sentences)
    for sentence, detail in zip(sentences, refused, strict=True):
        assert sentence in detail
    broken = {each.file for each in check.by_kind().get("unreadable", [])}
    assert broken == {name for name in names[1:] if name.endswith(".png")}
    assert Page(check_page(check)).texts_of("h1") == [str(tmp_path)]


def test_files_that_are_all_unreadable(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [kind for kind, *_ in found(tmp_path)] == ["unreadable"] * 4
    assert "4" in Page(check_page(check_folder(tmp_path))).texts_of("dd")


def test_the_table_has_a_row_for_each_finding(clean, tmp_path):
    picture(0).save(clean / "val/cat/x, y.png")
    page = write_check(check_folder(clean), tmp_path / "out")
    assert page == tmp_path / "out" / PAGE
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / TABLE).read_text())))
    assert list(rows[0].values()) == [
        "error", "two_splits", "val/cat/x, y.png", "train/cat/0.png", "cat", "",
    ]  # fmt: skip
    assert [row["severity"] for row in rows] == ["error", "warning", "warning"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {PAGE, TABLE}


def test_the_page_shows_the_findings_and_needs_nothing_else(clean):
    for number in range(MOST_SHOWN + 1):
        picture(0).save(clean / f"val/cat/x{number:02d}.png")
    (clean / "val/dog/broken.png").write_bytes(b"")
    page = Page(check_page(check_folder(clean)))
    assert page.texts_of("h2")[0] == KINDS["unreadable"].title
    assert page.texts_of("li")[0].startswith("val/dog/broken.png: cannot be read")
    assert len(page.all("figure")) == MOST_SHOWN
    assert len(page.all("img")) == 2 * MOST_SHOWN
    assert any(f"The first {MOST_SHOWN} are shown" in text for text in page.texts_of("p"))
    assert not page.all("script")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert page.texts_of("th")[-2:] == ["cat", "dog"]
    assert page.texts_of("td") == ["4", "29", "4", "5"]


def test_names_of_strangers_are_text(tmp_path):
    name = "<script>&\N{RIGHT-TO-LEFT OVERRIDE}"
    write(tmp_path, *(f"{folder}/{n}.png" for folder in (name, "b") for n in range(3)))
    picture(0).save(tmp_path / name / "<b>'\".png")
    (tmp_path / "b" / b"\xff.png".decode(errors="surrogateescape")).write_bytes(b"")
    check = check_folder(tmp_path)
    text = check_page(check)
    page = Page(text)
    assert not page.all("script")
    assert not page.all("b")
    assert "<script>&\\u202e" in page.texts_of("th")
    assert any("<b>'\".png" in caption for caption in page.texts_of("figcaption"))
    text.encode()
    write_check(check, tmp_path.with_name("out"))


def test_the_documentation_lists_every_kind():
    text = (ROOT / "docs/checking.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert rows == [(name, kind.severity) for name, kind in KINDS.items()]
    order = [SEVERITIES.index(kind.severity) for kind in KINDS.values()]
    assert order == sorted(order)
