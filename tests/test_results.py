"""What `results/` holds is what the package counts, and the README's tables are made from it."""

import importlib.util
import pathlib

import keras
import pytest

import pit_keras
from pit_keras.analysis.benchmark import SETTINGS, published_size, read_rows
from pit_keras.analysis.cost import count_macs, count_parameters

ROOT = pathlib.Path(__file__).parents[1]
MEASURED = {row["model"]: row for row in read_rows(ROOT / "results/measured.csv").values()}


@pytest.fixture(scope="module")
def tables():
    """The script `results/make_tables.py`."""
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "results/make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", pit_keras.list_models())
def test_parameters_and_macs_are_what_the_package_counts(name):
    height, width = published_size(name)
    with keras.StatelessScope():  # so that no weights are drawn
        model = pit_keras.create_model(name, input_shape=(height, width, 3))
    row = MEASURED[name]
    assert row["image_size"] == f"{height}x{width}"
    assert row["parameters"] == str(count_parameters(model))
    assert row["macs"] == str(count_macs(model))


def test_all_was_measured_in_the_same_way():
    assert sorted(MEASURED) == pit_keras.list_models()
    rows = read_rows(ROOT / "results/measured.csv").values()
    assert len(rows) == len(MEASURED)
    same = [name for name in SETTINGS if name not in ("model", "image_size")]
    assert len({tuple(row[name] for name in same) for row in rows}) == 1


def test_the_readme_and_the_joined_table_are_up_to_date(tables):
    rows = tables.joined()
    readme = (ROOT / "README.md").read_bytes()
    assert tables.with_tables(readme.decode(), rows).encode() == readme
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


def test_a_readme_without_a_tables_place_is_an_error(tables):
    text = "<!-- table: models -->\n<!-- end -->\n<!-- table: recipes -->\n<!-- end -->\n"
    with pytest.raises(
        ValueError, match=r"needs <!-- table: speed --> .* once, and has it 0 times"
    ):
        tables.with_tables(text, tables.joined())
