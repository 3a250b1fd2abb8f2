from pit_keras.runs.versioned_folder import find_saved_model


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
