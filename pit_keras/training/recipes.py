"""The paper's training settings (section 4.1, table 2), each as its difference from a base.

    python train/train.py --recipe=cutmix --model=pit_s --dataset=imagenet2012 --data_dir=DIR \\
        --output_dir=runs/pit_s_cutmix

Top-1 on ImageNet to expect from the paper (PiT-Ti / XS / S / B):

    vanilla   100 epochs   71.3 / 72.4 / 73.3 / 76.1
    cutmix    100 epochs   72.6 / 76.8 / 79.0 / 79.9
"""

from pit_keras.training.config import Config

# Larger models warm up longer (section 4.1).
_LONG_WARMUP = {"pit_b": 10.0, "pit_b_distilled": 10.0}


def vanilla(model):
    """Random resized crop and flip, nothing else: the base of all settings."""
    config = Config(recipe="vanilla")
    config.model.name = model
    config.optimizer.warmup_epochs = _LONG_WARMUP.get(model, config.optimizer.warmup_epochs)
    return config


def cutmix(model):
    """`vanilla` and CutMix on every batch."""
    config = vanilla(model)
    config.recipe = "cutmix"
    config.data.cutmix_alpha = 1.0
    return config


RECIPES = {"vanilla": vanilla, "cutmix": cutmix}


def recipe(name, model):
    """The configuration of a recipe for a model.

    Raises:
        ValueError: If there is no such recipe; it lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; recipes are {', '.join(RECIPES)}.")
    return RECIPES[name](model)
