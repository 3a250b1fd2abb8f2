"""Clients that take for ever, and the server's own end."""

import json
import os
import signal
import sys
import time

import pytest
from servers import begun, connected, received, serving

import pit_keras.cli
from pit_keras.serving.server import SECONDS_TO_FINISH, bind, model_name


@pytest.fixture
def server(smallest_model):
    with serving(smallest_model, "--max_queue=1", "--timeout=2") as server:
        yield server


def test_slow_clients_hold_no_place_for_ever(server, files):
    with connected(server) as silent, connected(server) as half_a_head:
        half_a_head.sendall(b"POST / HTTP/1.1")
        slow, _ = begun(server, files[0])
        assert server.predict(files[0]).status_code == 503
        answer = received(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 2 seconds" in answer
        assert server.predict(files[0]).status_code == 200
        assert received(silent) == received(half_a_head) == b""
        slow.close()


def test_what_is_in_flight_is_finished_at_the_end(server, files):
    connection, rest = begun(server, files[0])
    os.kill(server.process.pid, signal.SIGTERM)
    while accepts(server):
        time.sleep(0.01)
    connection.sendall(rest)
    answer = received(connection)
    connection.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "predictions" in json.loads(answer.partition(b"\r\n\r\n")[2])
    server.process.join(60)
    assert server.process.exitcode == 0


def test_ctrl_c_does_not_wait_for_the_rest_of_a_request(server, files):
    connection, _ = begun(server, files[0])
    start = time.monotonic()
    os.kill(server.process.pid, signal.SIGINT)
    server.process.join(60)
    assert time.monotonic() - start < SECONDS_TO_FINISH
    assert server.process.exitcode == 0
    assert server.log.read_text().endswith("until Ctrl-C.\n")
    connection.close()


def accepts(server):
    try:
        connected(server).close()
    except OSError:
        return False
    return True


def test_ctrl_c_ends_it_and_its_port_cannot_be_had_twice(server, smallest_model):
    arguments = ["serve", f"--model={smallest_model}", f"--port={server.port}"]
    with pytest.raises(SystemExit) as ended:
        pit_keras.cli.main(arguments)
    # Before the model is read.
    where = f"--host=127.0.0.1 --port={server.port}"
    assert ended.value.code == f"error: {where} cannot be served at: Address already in use."

    os.kill(server.process.pid, signal.SIGINT)
    server.process.join(60)
    assert server.process.exitcode == 0
    bind("127.0.0.1", server.port).close()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--host=no.such.host.invalid", "--host=no.such.host.invalid is no address of this"),
        ("--host=192.0.2.1", "--host=192.0.2.1 --port=0 cannot be served at: Cannot assign"),
        ("--name=a/b", "--name=a/b may have letters, digits, '.', '_' and '-' only."),
        ("--name=", "--name= may have letters"),
        ("--classes=none.txt", "none.txt: No such file"),
        ("--model=none.keras", "none.keras does not exist"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_sentence(smallest_model, option, words):
    arguments = ["serve", f"--model={smallest_model}", "--port=0", option]
    with pytest.raises(SystemExit) as ended:
        pit_keras.cli.main(arguments)
    assert ended.value.code.startswith(f"error: {words}")


def test_a_missing_package_is_told_with_how_to_get_it(smallest_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "pit_keras.serving.server")
    monkeypatch.delattr(pit_keras.serving, "server")
    with pytest.raises(SystemExit) as ended:
        pit_keras.cli.main(["serve", f"--model={smallest_model}"])
    words = "error: serve needs the package uvicorn: pip install pit_keras[serve]."
    assert ended.value.code == words


@pytest.mark.parametrize("option", ["--port=65536", "--port=x", "--max_batch=0", "--timeout=-1"])
def test_numbers_have_bounds(option, capsys):
    with pytest.raises(SystemExit) as ended:
        pit_keras.cli.main(["serve", "--model=none.keras", option])
    assert ended.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err


def test_a_model_is_called_by_its_folder_or_file(tmp_path):
    (tmp_path / "my run").mkdir()
    assert model_name(tmp_path / "my run") == "my-run"
    assert model_name(tmp_path / "Größe 1.5.keras") == "Gr-e-1.5"
    assert model_name(tmp_path / "猫.tflite") == "model"
    assert model_name(tmp_path, "pit_s-1.0") == "pit_s-1.0"
