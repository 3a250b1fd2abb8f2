"""What a command imports before it is needed, and how it starts."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from pit_keras import cli
from pit_keras.commands import benchmark, startup
from pit_keras.measure.measuring import MEASURES

ROOT = pathlib.Path(__file__).parents[2]
NAMES = [name for group in cli.COMMANDS.values() for name in group]
# Command lines that end before Keras is needed, and a part of what each says.
EARLY = {
    "": "Deploy:\n  convert",
    "--help": "Deploy:\n  convert",
    "--version": "0.",
    **{f"{name} --help": "--" for name in NAMES if name != "models"},
    "models --help": "such as 'pit_*'",
    "fly": "invalid choice: 'fly'",
    "predict --modle=x": "the following arguments are required",
    "benchmark --measure=speed": "not 'speed'",
    "train --epochz=1": "Did you mean: epochs",
    "train --dataset=folder:no --output_dir=x": "error: There is no folder no.",
    "detect --dataset=coco:no --output_dir=x": "error: There is no folder no.",
    "analyze interaction --model=no.keras --dataset=digits --output_dir=x": "no.keras does not",
    "check no": "error: There is no folder no.",
    "predict --model=no setup.py": "error: no does not exist; give a run folder",
    "predict --model=no no.jpg": "error: There is no image at no.jpg.",
    "evaluate --model=no.keras": "error: no.keras does not exist",
    "evaluate --model=no.keras --suite=fgsm": "error: no.keras does not exist",
    "export --model=no": "error: no does not exist",
    "serve --model=no.tflite": "error: no.tflite does not exist",
    "convert no.pth": "error: There is no weights file no.pth.",
    "train --model=PiT-S --dataset=digits --output_dir=x": "Did you mean pit_s?",
    "detect --model=detr_pit --dataset=digits --output_dir=x": "Did you mean detr_pit_s",
    "models pit_z*": "No model matches",
    "benchmark pit_z": "No model matches",
    "convert imagenet --model=pit_z": "Unknown model 'pit_z'",
    "runs no": "error: There is no folder no;",
}


def python(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("before", "value"),
    [
        ("os.environ.pop(name, None)", "1"),
        ("os.environ[name] = '0'", "0"),
        ("os.environ.pop(name, None); sys.modules['tensorflow'] = None", "None"),  # it is too late
    ],
)
def test_tensorflow_uses_onednn_unless_it_is_told_otherwise(before, value):
    program = f"import os, platform, sys; name = 'TF_ENABLE_ONEDNN_OPTS'; {before}\n"
    program += "platform.machine = lambda: 'x86_64'; import pit_keras; print(os.environ.get(name))"
    assert python(program).stdout.split() == [value]


def test_help_typos_and_missing_files_are_answered_without_keras():
    """All in one process, since each new one takes time."""
    program = f"""
import contextlib, io, sys
from absl import flags
from pit_keras.cli import main

for line, words in {EARLY!r}.items():
    said = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(line.split())
        except SystemExit as ended:
            print(ended)
    said.seek(0)
    text = said.read()
    assert words in text, (line, text)
    heavy = {{"keras", "tensorflow", "pydantic", "numpy"}} & set(sys.modules)
    assert not heavy, (line, heavy)
    for name in list(flags.FLAGS):  # as in a new process
        if flags.FLAGS.find_module_defining_flag(name).startswith("pit_keras"):
            delattr(flags.FLAGS, name)
"""
    ended = python(program)
    assert ended.returncode == 0, ended.stderr


def test_names_that_are_spelt_twice_are_the_same():
    assert set(MEASURES) == set(benchmark.MEASURES)


def test_all_commands_are_shown_in_groups(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != "-"] == NAMES


@pytest.mark.parametrize("failing", [False, True])
def test_standard_error_is_held_back_unless_there_is_an_error(failing, capfd):
    try:
        with startup.held_back_stderr():
            os.write(2, b"a remark\n")
            if failing:
                raise ImportError("no backend")
    except ImportError:
        assert failing
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "a remark\n" * failing + "after\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["train/train.py", "--model=a b"], "python train/train.py '--model=a b'"),
        (["/usr/bin/pit-keras", "train", "--seed=1"], "pit-keras train --seed=1"),
        (["/x/pit_keras/__main__.py", "sweep"], "pit-keras sweep"),
    ],
)
def test_a_run_is_resumed_by_what_was_typed(argv, typed, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert startup.typed_command() == typed


def test_ctrl_c_while_tensorflow_is_imported_is_quiet():
    program = "from pit_keras.cli import main; main(['models', 'vit_ti'])"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command, pipes = [sys.executable, "-c", program], {"stderr": subprocess.PIPE, "text": True}
    interrupted = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    maps = pathlib.Path(f"/proc/{interrupted.pid}/maps")
    while maps.exists() and "tensorflow" not in maps.read_text():
        time.sleep(0.01)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.communicate()[1] in ("", "Interrupted.\n")
    assert interrupted.returncode in (-signal.SIGINT, 130)


def test_a_floatx_in_keras_json_is_not_that_of_commands(tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float16"}')
    program = f"""
import os
os.environ["KERAS_HOME"] = {str(tmp_path)!r}
from pit_keras.cli import main; main(["models", "vit_ti"])
import keras; print(keras.config.floatx())
"""
    assert python(program).stdout.splitlines()[-1] == "float32"


def test_a_missing_backend_is_one_sentence():
    program = """
import os
os.environ["KERAS_BACKEND"] = "abacus"
from pit_keras.cli import main; main(["models"])
"""
    ended = python(program)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Keras cannot use its backend (")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pit-keras ", {"train", "serve"}),
        ("pit-keras predict --", {"--model", "--explain"}),
        ("pit-keras train --rec", {"--recipe"}),
        ("pit-keras train --recipe ", {"cutmix", "finetune"}),
        ("pit-keras train --config.data.f", {"--config.data.flip"}),
        ("pit-keras detect --tea", set()),
        ("pit-keras analyze ", {"interaction"}),
    ],
)
def test_a_shell_completes_commands_and_flags(line, offered, tmp_path):
    answer = tmp_path / "answer"
    completing = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\n",
    }
    program = (
        f"import os; os.environ.update({completing!r}); from pit_keras.cli import main; main()"
    )
    python(program)
    found = {word.strip() for word in answer.read_text().splitlines()}
    assert offered <= found if offered else not found
