import pytest
import tensorflow as tf

from pit_keras.runs.versioned_folder import find_saved_model, load_saved_model_from


def save(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(b"")


def test_the_highest_version_is_found(tmp_path):
    assert find_saved_model(tmp_path / "missing") is None
    assert find_saved_model(tmp_path) is None
    save(tmp_path / "export")  # no version
    assert find_saved_model(tmp_path) is None
    for version in ("9", "10", "2"):
        save(tmp_path / version)
    (tmp_path / "11").mkdir()  # not written yet
    assert find_saved_model(str(tmp_path)) == tmp_path / "10"


def test_a_model_without_versions_is_found_where_it_lies(tmp_path):
    save(tmp_path)
    save(tmp_path / "1")
    assert find_saved_model(tmp_path) == tmp_path
    assert find_saved_model(tmp_path / "1") == tmp_path / "1"


@pytest.mark.parametrize("name", ["plain", "[v1]", "a*b?", "back\\slash", "{1} 50% #é漢'"])
def test_a_model_is_loaded_from_any_path(tmp_path, name):
    module = tf.Module()
    module.number = tf.Variable(3.0)
    tf.saved_model.save(module, str(tmp_path / name / "1"))
    assert load_saved_model_from(tmp_path / name / "1").number.numpy() == 3.0
