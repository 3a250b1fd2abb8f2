"""`results/` holds what the package counts, and the tables of README and docs come from it."""

import importlib.util
import pathlib
import shutil

import pytest
from shapes_only import shapes_only

import pit_keras
from pit_keras.measure.cost_table import SETTINGS, published_size, read_rows
from pit_keras.models.cost import count_macs, count_parameters

ROOT = pathlib.Path(__file__).parents[1]
CLASSIFIERS = [name for name in pit_keras.list_models() if not name.startswith("detr_")]
MEASURED = {row["model"]: row for row in read_rows(ROOT / "results/measured.csv").values()}


def script(root):
    """The script `benchmarks/make_tables.py` of a copy of the repository."""
    spec = importlib.util.spec_from_file_location("make_tables", root / "benchmarks/make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables():
    return script(ROOT)


@pytest.fixture
def copy(tmp_path):
    """A copy of all that the script reads, whose joined table is not made yet."""
    for page in script(ROOT).PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks/make_tables.py", tmp_path / "benchmarks")
    shutil.copytree(
        ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.png", "models.csv")
    )
    return tmp_path


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_parameters_and_macs_are_what_the_package_counts(name):
    height, width = published_size(name)
    model = shapes_only(name, input_shape=(height, width, 3))
    row = MEASURED[name]
    assert row["image_size"] == f"{height}x{width}"
    assert row["parameters"] == str(count_parameters(model))
    assert row["macs"] == str(count_macs(model))


def test_all_was_measured_in_the_same_way():
    assert sorted(MEASURED) == CLASSIFIERS
    rows = read_rows(ROOT / "results/measured.csv").values()
    assert len(rows) == len(MEASURED)
    same = [name for name in SETTINGS if name not in ("model", "image_size")]
    assert len({tuple(row[name] for name in same) for row in rows}) == 1


def test_the_pages_and_the_joined_table_are_up_to_date(tables):
    rows = tables.joined()
    for page in tables.PAGES:
        text = (ROOT / page).read_bytes()
        assert tables.with_tables(page, text.decode(), rows).encode() == text
    assert tables.models_csv(rows).encode() == (ROOT / "results/models.csv").read_bytes()


def test_every_figure_of_others_has_a_source_and_is_of_a_model(tables):
    for row in tables.joined():
        for whose in ("paper", "released"):
            figures = [row[column] for column in tables.COLUMNS if column.startswith(whose)]
            assert bool(row[f"{whose}_source"]) == any(figures)
            assert bool(row[f"{whose}_source"]) == bool(row[f"{whose}_top1"])
        assert row["here_top1"] == ""  # nothing was trained on ImageNet here
    assert set(tables.read("paper.csv")) | set(tables.read("released.csv")) <= set(MEASURED)


def test_a_distilled_model_is_put_beside_the_papers_distilled_training(tables):
    rows = {row["model"]: row for row in tables.joined()}
    assert rows["pit_s"]["paper_top1"] == "80.9"
    assert rows["pit_s"]["paper_images_per_second"] == "1266"
    assert rows["pit_s_distilled"]["paper_top1"] == "81.9"
    assert rows["pit_s_distilled"]["paper_flops_g"] == ""
    assert rows["resnet50_no_pooling"]["paper_top1"] == ""


def test_the_script_writes_what_is_committed(copy, capsys):
    tables = script(copy)
    for page in tables.PAGES:
        (copy / page).write_text((ROOT / page).read_text().replace("| `pit_s` |", "| `old` |"))
    tables.main([])
    for name in (*tables.PAGES, "results/models.csv"):
        assert (copy / name).read_bytes() == (ROOT / name).read_bytes()


def lines_changed(change):
    """A change of a file's lines as one of its text."""
    return lambda text: "".join(change(text.splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "measured.csv",
            lambda text: text + "pit_s,64x64,1,mixed_float16,1,jax,a,2,b,22,33,,,,,,,,,\n",
            "measured.csv has two rows of pit_s; leave one.",
        ),
        (
            "released.csv",
            lambda text: text.replace("vit_s,", "vit_small,"),
            "released.csv has a row of 'vit_small', which is no model.",
        ),
        (
            "measured.csv",
            lambda text: text.rstrip()[:-8],
            "needs 20 cells, one for each column.",
        ),
        (
            "measured.csv",
            lambda text: text[: text.index("vit_ti,")],
            "measured.csv lacks a row of vit_ti.",
        ),
        (
            "measured.csv",
            lines_changed(
                lambda lines: [*lines[:4], lines[4].replace(",16,", ",16,,"), *lines[5:]]
            ),
            "measured.csv, line 5 (efficientnet_b3) needs 20 cells",
        ),
        (
            "measured.csv",
            lines_changed(
                lambda lines: [lines[0], lines[1].replace(",5288548,", ",,"), *lines[2:]]
            ),
            "measured.csv, line 2 (efficientnet_b0) cannot have '' as its parameters.",
        ),
        (
            "measured.csv",
            lambda text: text.replace(",macs,", ",flops,"),
            "measured.csv needs the columns model,image_size,",
        ),
        ("measured.csv", lambda _: "", "needs the columns model,image_size,"),
        ("paper.csv", lambda text: text.replace("73.3", "nan"), "'nan' as its vanilla."),
        ("paper.csv", lambda text: text.replace("table 2,", "täble"), "paper.csv is not text in"),
        (
            "paper.csv",
            lines_changed(lambda lines: [line for line in lines if line[:6] != "pit_ti"]),
            "paper.csv lacks a row of pit_ti.",
        ),
        ("paper.csv", lambda text: text.rstrip()[:-1], "paper.csv is no table after line 7: unex"),
        ("released.csv", None, "released.csv: No such file or directory."),
        ("sweep_resnet.csv", lambda text: text.replace(",2e+06,", ",,"), "as its macs_target."),
        ("../README.md", lambda text: text.replace("<!-- table: models -->", ""), "has it 0 times"),
        ("../docs/performance.md", None, "performance.md: No such file or directory."),
    ],
)
def test_a_file_that_cannot_be_right_is_one_sentence(name, change, message, copy):
    path = copy / "results" / name
    text = path.read_text()
    path.unlink()
    if change is not None:
        assert change(text) != text
        path.write_bytes(change(text).encode("latin-1" if "ä" in change(text) else "utf-8"))
    before = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}

    with pytest.raises(SystemExit) as end:
        script(copy).main([])

    assert str(end.value).startswith("error: ")
    assert message in str(end.value)
    assert len(str(end.value).splitlines()) == 1
    assert {file: file.read_bytes() for file in before} == before
    assert not (copy / "results/models.csv").exists()


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("pit_s", 2), ("--check", 2)])
def test_arguments_change_nothing(argument, status, copy, capsys):
    (copy / "README.md").write_text("Not to be written to.\n")
    with pytest.raises(SystemExit) as end:
        script(copy).main([argument])
    assert end.value.code == status
    assert (copy / "README.md").read_text() == "Not to be written to.\n"
    told = capsys.readouterr()
    assert "what `pit-keras benchmark --output=results/measured.csv` counted" in told.out or status
    assert f"unrecognized arguments: {argument}" in told.err or not status


def test_a_page_without_a_tables_place_is_an_error(tables):
    with pytest.raises(
        ValueError, match=r"^docs/pooling.md needs <!-- table: sweeps --> .* once, and has it 0"
    ):
        tables.with_tables("docs/pooling.md", "# Token pooling\n", tables.joined())
