import pytest
from absl import flags

from pit_keras.training.command_line import config_from_flags, parse_training_flags


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
    assert config.optimizer.warmup_epochs == 10
    assert config.data.image_size == (160, 224)
    assert (config.training.epochs, config.training.seed, config.training.batch_size) == (20, 3, 8)
    assert config.training.precision == "mixed_bfloat16"
    assert config.optimizer.learning_rate == 1e-3
    assert (config.data.crop_scale, config.data.flip) == ((0.5, 1.0), False)
    assert config.data.dataset == "digits"


def test_one_side_is_a_square():
    assert config_of("--image_size=32").data.image_size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optimizer.learning_rat=1"], "did you mean optimizer.learning_rate"),
        (["--noconfig.data.flop"], "did you mean data.flip"),
        (["--config.zzz=1"], "no configuration field 'zzz'; fields are recipe, model.name"),
        (["--config.training.epochs=many"], "could not convert|invalid literal|epochs=many"),
        (["--recipe=deit3"], "value should be one of <vanilla\\|cutmix>"),
        (["--distribute=tpu"], "value should be one of"),
        (["--batchsize=3"], "Unknown command line flag 'batchsize'"),
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
        (["--config.data.crop_scale=0.5"], "data.crop_scale must be 2 numbers"),
        (["--config.data.crop_scale=(0.5, 'x')"], "data.crop_scale must be 2 numbers"),
        (["--epochs=0"], "training.epochs must be positive; got 0"),
        (["--epochs=3"], "optimizer.warmup_epochs must be not negative and less than the 3 epochs"),
    ],
)
def test_wrong_values_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        config_of(*arguments)
