from pit_keras.runs.history import write_history


def test_history_is_what_its_rows_say(tmp_path):
    history = tmp_path / "history.csv"
    write_history(history, [])  # there is none yet
    write_history(history, [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": 2.0}])
    assert history.read_text() == "epoch,loss\n0,0.30000000000000004\n1,2.0\n"
    write_history(history, [])
    assert not history.exists()
