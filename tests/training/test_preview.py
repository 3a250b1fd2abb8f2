import itertools

import numpy as np
import pytest
from PIL import Image

from pit_keras.config.recipes import recipe
from pit_keras.data.labelled_images import open_source
from pit_keras.data.pipeline import train_batches
from pit_keras.data.unreadable import UnreadableImageError
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.preview import draw_preview, first_batches


@pytest.fixture
def config():
    config = recipe("cutmix", "pit_ti")
    config.data.dataset, config.data.image_size = "digits", (16, 24)
    config.training.batch_size, config.training.seed = 20, 3
    return config


@pytest.fixture(scope="module")
def source():
    return open_source("digits")


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.*")}


def test_the_first_batches_are_those_of_the_run(config, source):
    expected = train_batches(source, config.data, batch_size=20, seed=3).as_numpy_iterator()

    batches = first_batches(config, source, 3)

    assert len(batches) == 3
    for (images, labels), batch in zip(batches, itertools.islice(expected, 3), strict=True):
        np.testing.assert_array_equal(images, batch["image"][:16])
        np.testing.assert_array_equal(labels, batch["label"][:16])


def assert_is_preview(path, batches):
    with Image.open(path) as picture:
        assert picture.width == 2400
        assert picture.height == 520 * batches  # two rows a batch


def test_a_preview_is_the_only_trace_and_can_be_repeated_when_there_is_a_run(
    config, source, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    path = draw_preview(config, source, 1, folder.path)
    assert list(folder.path.iterdir()) == [path] == [folder.preview]
    assert_is_preview(path, batches=1)
    folder.check(config)

    folder.create(config, source.class_names)
    folder.results.write_text("{}")
    before = contents(folder.path)
    assert draw_preview(config, source, 2, folder.path) == path
    assert contents(folder.path) == {**before, path.relative_to(folder.path): path.read_bytes()}
    assert_is_preview(path, batches=2)
    folder.check(config)


def test_where_a_run_is_refused_so_is_its_preview(config, source, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(config, source.class_names)
    config.data.flip = False
    with pytest.raises(ValueError, match=r"holds another run: data\.flip is True there"):
        draw_preview(config, source, 1, folder.path)
    with pytest.raises(ValueError, match="holds files but no run"):
        draw_preview(config, source, 1, tmp_path)
    assert not list(tmp_path.rglob("preview*"))


def test_what_cannot_be_trained_on_is_one_sentence_and_makes_no_folder(config, tmp_path):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / name / f"{number}.png").write_text("no image")
    source = open_source(f"folder:{tmp_path}/data", holdout=0.25)
    config.training.batch_size = 2
    with pytest.raises(UnreadableImageError, match=r"^More than half .*\.png\.$"):
        draw_preview(config, source, 1, tmp_path / "run")
    config.training.batch_size = 7
    with pytest.raises(ValueError, match=r"--batch_size"):
        draw_preview(config, source, 1, tmp_path / "run")
    assert not (tmp_path / "run").exists()
