import os
import pathlib
import re
import signal
import subprocess
import sys

import forked
import pytest
from absl import flags

from pit_keras.commands.training_flags import (
    DETECT,
    TRAIN,
    config_from_flags,
    help_text,
    keep_warmup,
    parse_training_flags,
    profiled_steps,
)
from pit_keras.config.fields import CLASSIFIERS_OWN, DETECTORS_OWN, Config, field_paths
from pit_keras.runs.run_folder import RunFolder

SCRIPT = pathlib.Path(__file__).parents[2] / "train" / "train.py"


def config_of(*arguments):
    argv = ["train.py", "--dataset=digits", "--output_dir=run", *arguments]
    values = flags.FlagValues()
    parse_training_flags(argv, values)
    return config_from_flags(values)


def test_recipe_named_flags_and_overrides():
    config = config_of(
        "--recipe=cutmix",
        "--model=pit_b",
        "--image_size=160,224",
        "--epochs=20",
        "--seed=3",
        "--precision=mixed_bfloat16",
        "--config.optimizer.learning_rate=1e-3",
        "--config.model.patch_size=4",
        "--config.data.crop_scale=(0.5, 1)",
        "--noconfig.data.flip",
        "--config.training.batch_size=8",
    )
    assert (config.recipe, config.data.cutmix_alpha) == ("cutmix", 1.0)
    assert (config.model.name, config.model.patch_size) == ("pit_b", 4)
    assert config.optimizer.warmup_epochs == 2  # a fifth of the recipe's, as the epochs
    assert config.data.image_size == (160, 224)
    assert (config.training.epochs, config.training.seed, config.training.batch_size) == (20, 3, 8)
    assert config.training.precision == "mixed_bfloat16"
    assert config.optimizer.learning_rate == 1e-3
    assert (config.data.crop_scale, config.data.flip) == ((0.5, 1.0), False)
    assert config.data.dataset == "digits"


def test_flags_of_scale():
    config = config_of(
        "--distribute=multi_worker",
        "--jit=off",
        "--accumulate=4",
        "--checkpoint_every_steps=100",
        "--checkpoint_every_minutes=2.5",
    ).training
    assert (config.distribute, config.jit, config.accumulate) == ("multi_worker", "off", 4)
    assert (config.checkpoint_every_steps, config.checkpoint_every_minutes) == (100, 2.5)
    assert config.images_of_update == 4 * config.batch_size


@pytest.mark.parametrize("text", ["10", "10:", ":5", "5:5", "7:5", "a:b", "-1:5", "1:2:3", ""])
def test_steps_to_profile_are_two_numbers(text):
    with pytest.raises(ValueError, match=r"must be START:STOP, .*; got"):
        profiled_steps(text)


def test_steps_to_profile():
    assert profiled_steps("3:12") == (3, 12)
    assert profiled_steps(None) is None


@pytest.mark.parametrize(
    ("arguments", "warmup"),
    [
        (["--epochs=10"], 0.5),
        (["--config.training.epochs=10"], 0.5),
        (["--epochs=200"], 5.0),  # never longer than the recipe's
        (["--recipe=finetune", "--epochs=10"], 1.0),
        (["--epochs=10", "--config.optimizer.warmup_epochs=3"], 3.0),
        (["--recipe=finetune", "--config.optimizer.warmup_epochs=3"], 3.0),
    ],
)
def test_a_warm_up_that_was_not_set_follows_the_epochs(arguments, warmup):
    assert config_of(*arguments).optimizer.warmup_epochs == pytest.approx(warmup)


@pytest.mark.parametrize(
    ("stored", "arguments", "kept"),
    [
        (5.0, [], 5.0),  # as an earlier version had it
        (2.0, [], 0.5),  # another run, which the folder's check refuses
        (5.0, ["--config.optimizer.warmup_epochs=1"], 1.0),
        (None, [], 0.5),
    ],
)
def test_a_run_of_an_earlier_version_keeps_its_warm_up(stored, arguments, kept, tmp_path):
    values = flags.FlagValues()
    required = ["train.py", "--dataset=digits", "--output_dir=runs/x", "--epochs=10"]
    parse_training_flags([*required, *arguments], values)
    config, folder = config_from_flags(values), RunFolder(tmp_path)
    if stored is not None:
        begun = config_from_flags(values)
        begun.optimizer.warmup_epochs = stored
        folder.config.write_text(begun.to_json())
    keep_warmup(values, config, folder)
    assert config.optimizer.warmup_epochs == kept


def test_one_side_is_a_square():
    assert config_of("--image_size=32").data.image_size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optimizer.learning_rat=1"], r"Did you mean: config\.optimizer\.learning_rate"),
        (["--noconfig.data.flop"], r"Did you mean: config\.data\.flip"),
        (["--config.zzz=1"], r"'config\.zzz'"),
        (["--config.model=3"], r"'config\.model'. Did you mean: .*config\.model\.name"),
        (["--config=3"], "Unknown command line flag 'config'"),
        (["--worker=first"], "^--worker must be a whole number; got 'first'"),
        (["--config.data.flip=maybe"], "^--config.data.flip must be true or false; got 'maybe'"),
        (
            ["--config.data.crop_scale=(0.5,1)", "--config.data.crop_scale=(0.6,1)"],
            r"^--config\.data\.crop_scale=.*already defined as \(0\.5,1\)",
        ),
        (["--dataset="], "--dataset must be given; --help lists all flags"),
        (["--dataset=", "--output_dir="], "--dataset and --output_dir must be given"),
        (
            ["--recipe=deit3"],
            "value should be one of <vanilla\\|cutmix\\|deit\\|distill\\|finetune\\|photos>",
        ),
        (["--batchsize=3"], "Unknown command line flag 'batchsize'"),
        (["--preview=0"], r"^--preview=0: .* range \[1, 20\]"),
        (["--preview=-2"], r"^--preview=-2: .* range \[1, 20\]"),
        (["--preview=21"], r"^--preview=21: .* range \[1, 20\]"),
        (["--preview=all"], "^--preview must be a whole number; got 'all'"),
    ],
)
def test_wrong_flags_are_one_sentence(arguments, message):
    with pytest.raises(flags.Error, match=message):
        config_of(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_size=big"], "--image_size must be one side or height,width"),
        (["--image_size=1,2,3"], "--image_size must be one side or height,width"),
        (
            ["--epochs=6", "--config.training.epochs=7"],
            "training.epochs is set twice, to 6 and to 7",
        ),
        (["--config.model.name=pit_b"], "model.name is set twice"),
        (["--accumulate=x"], "^--accumulate must be .* integer; got 'x'"),
        (["--config.training.epochs=many"], "^--epochs must be .* integer; got 'many'"),
        (["--epochs=many"], "^--epochs must be .* integer; got 'many'"),
        (["--config.model.depths=1,2,3x"], "^--config.model.depths must be .*; got '1,2,3x'"),
        (["--distribute=tpu"], "^--distribute must be 'none', 'mirrored' or 'multi_worker'; got"),
        (["--config.data.crop_scale=0.5"], r"^--config.data.crop_scale must be .* tuple; got 0.5"),
        (["--config.data.crop_scale=(0.5, 'x')"], r"crop_scale must be .* number; got 'x'\.$"),
        (["--config.data.image_size=(8, 8.5)"], r"^--image_size must be .* integer; got 8\.5"),
        (["--epochs=0"], "^--epochs must be greater than 0; got 0"),
        (["--batch_size=0"], "^--batch_size must be greater than 0; got 0"),
        (["--seed=-1"], "^--seed must be .* 0; got -1"),
        (["--seed=4294967296"], "^--seed must be less than 4294967296"),
        (
            ["--dataset=folder:"],
            "^--dataset must be digits, folder:PATH, for a",
        ),
        (
            ["--config.data.mixup_alpha=-0.1"],
            r"^--config.data.mixup_alpha must be .* 0; got -0.1\.$",
        ),
        (["--config.data.cutmix_alpha=nan"], "^--config.data.cutmix_alpha must be .*; got 'nan'"),
        (["--config.data.cutmix_alpha=inf"], "^--config.data.cutmix_alpha must be .*; got 'inf'"),
        (
            ["--config.data.erasing=1.5"],
            "^--config.data.erasing must be .* 1; got 1.5",
        ),
        (["--accumulate=0"], "^--accumulate must be greater than 0; got 0"),
        (["--checkpoint_every_minutes=0"], "^--checkpoint_every_minutes must be greater than 0"),
        (["--config.data.color_jitter=1.5"], "^--config.data.color_jitter must be .* 1; got 1.5"),
        (
            ["--config.data.color_jitter=0.3", "--config.data.rand_augment"],
            "^--config.data.color_jitter must be 0 with data.rand_augment",
        ),
        (["--config.data.views=0"], "^--config.data.views must be greater than 0"),
        (["--config.data.mix_mode=elem"], "^--config.data.mix_mode must be 'batch' or"),
        (["--config.training.label_smoothing=1"], "^--config.training.label_smoothing must be"),
        (["--weights="], "^--weights must be imagenet or the path of a weights file; got ''"),
        (
            ["--epochs=3", "--config.optimizer.warmup_epochs=5"],
            "^--config.optimizer.warmup_epochs must be less than the 3 epochs",
        ),
    ],
)
def test_wrong_values_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        config_of(*arguments)


def detect_config_of(*arguments):
    argv = ["detect.py", "--dataset=coco:here", "--output_dir=run", *arguments]
    values = flags.FlagValues()
    parse_training_flags(argv, values, DETECT)
    return config_from_flags(values)


def test_detection_has_its_own_recipe_and_model():
    config = detect_config_of("--batch_size=8", "--image_size=128,192", "--weights=none")
    assert (config.recipe, config.model.name) == ("detr", "detr_pit_s")
    assert (config.data.image_size, config.model.weights) == ((128, 192), None)
    assert (config.optimizer.learning_rate, config.optimizer.scaled_from) == (1e-4, None)
    assert "<detr>: Training setting of the paper. (default detr)" in help_text("", script=DETECT)
    with pytest.raises(flags.Error, match="value should be one of <detr>"):
        detect_config_of("--recipe=cutmix")
    with pytest.raises(ValueError, match=r"^--teacher must be None for a detector"):
        detect_config_of("--teacher=regnety_160")
    with pytest.raises(ValueError, match=r"^--dataset must be digits, .*for a detector coco:PATH"):
        detect_config_of("--dataset=coco:")


@pytest.mark.parametrize(
    ("config_of", "argument", "message"),
    [
        (detect_config_of, "--model=pit_s", "pit_s is a classifier, which .* pit-keras train"),
        (config_of, "--model=detr_pit_s", "detr_pit_s is a detector, which .* pit-keras detect"),
        (detect_config_of, "--jit=on", "--jit must be off or auto"),
        (detect_config_of, "--image_size=600,400", "--image_size must be the short side"),
    ],
)
def test_each_script_refuses_what_is_the_others(config_of, argument, message):
    with pytest.raises(ValueError, match=message):
        config_of(argument)


def test_weights_of_a_recipe_can_be_switched_off():
    assert config_of("--weights=a.keras").model.weights == "a.keras"
    assert config_of("--weights=none").model.weights is None


def run_train(*arguments):
    return forked.run_script(SCRIPT, *arguments)


def test_help_lists_flags_and_overrides_and_is_no_failure():
    process = run_train("--help")
    assert process.returncode == 0
    assert "--output_dir\n      Run folder, made if need be. (required)" in process.stdout
    assert "--weights\n" in process.stdout
    assert "--preview\n" in process.stdout


def test_help_shows_what_has_a_meaning_for_the_command():
    listed = {
        script: set(re.findall(r"^  ([a-z_.0-9]+) = ", help_text("", script), re.MULTILINE))
        for script in (TRAIN, DETECT)
    }
    assert listed[TRAIN] | listed[DETECT] == set(field_paths(Config()))
    assert listed[TRAIN] & set(DETECTORS_OWN) == listed[DETECT] & set(CLASSIFIERS_OWN) == set()
    assert "--teacher" in help_text("", TRAIN)
    assert "detect" not in help_text("", TRAIN)
    assert "--teacher" not in help_text("", DETECT)


def test_a_preview_is_drawn_and_a_run_may_follow(tmp_path):
    folder = tmp_path / "new" / "run"
    flags = ("--recipe=cutmix", "--dataset=digits", "--image_size=16", "--batch_size=4")
    process = run_train(*flags, "--preview=2", f"--output_dir={folder}")
    assert process.returncode == 0
    assert process.stdout == (
        f"The first training batches are in {folder}/preview.png; nothing was trained.\n"
    )
    assert [file.name for file in folder.iterdir()] == ["preview.png"]
    RunFolder(folder).check(config_of(*flags))


def test_a_bare_call_is_one_sentence():
    process = run_train()
    assert process.returncode == 1
    assert process.stderr.endswith(
        "error: --dataset and --output_dir must be given; --help lists all flags.\n"
    )


def test_what_cannot_be_mixed_is_one_sentence_and_begins_no_run(tmp_path):
    folder = tmp_path / "run"
    process = run_train(
        "--recipe=cutmix", "--dataset=digits", "--batch_size=1", f"--output_dir={folder}"
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("error: MixUp and CutMix need --batch_size=2")
    assert "Traceback" not in process.stderr
    assert not folder.exists()


def test_an_interrupt_before_training_leaves_no_traceback():
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--dataset=digits", "--output_dir=never"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    for line in process.stderr:
        if line.endswith("absl.app\n"):  # its own imports go on from here
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == -signal.SIGINT
    assert "Traceback" not in rest
    process.stderr.close()
