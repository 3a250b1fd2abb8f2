"""Training settings, each as its difference from a base: the paper's (section 4.1, table 2), and
one for fine-tuning on a folder of one's own images.

    python train/train.py --recipe=cutmix --model=pit_s --dataset=imagenet2012 --data_dir=DIR \\
        --output_dir=runs/pit_s_cutmix

Top-1 on ImageNet to expect from the paper (PiT-Ti / XS / S / B):

    vanilla   100 epochs   71.3 / 72.4 / 73.3 / 76.1
    cutmix    100 epochs   72.6 / 76.8 / 79.0 / 79.9

`finetune` is this project's own; its docstring says where its values come from.
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


def finetune(model):
    """From pretrained weights to a small data set in a few epochs.

        python train/train.py --recipe=finetune --model=pit_s --dataset=folder:PATH \\
            --output_dir=runs/mine

    The PiT paper fine-tunes no classifier, and rates for thousands of steps hardly move anything in
    the few that a small folder gives. Layer decay, label smoothing and drop path are those common
    for vision transformers (BEiT, arXiv 2106.08254; MAE, arXiv 2111.06377). The learning rate is
    chosen: 8e-3 for 512 images is 5e-4 for a batch of 32, what scaling BEiT's and MAE's 2e-3 or so
    with the root of the batch gives. On a hundred scanned digits a fourth of it was too little.
    """
    config = vanilla(model)
    config.recipe = "finetune"
    config.model.weights = "imagenet"
    config.model.drop_path_rate = 0.1
    config.data.crop_scale = (0.35, 1.0)
    config.optimizer.learning_rate = 8e-3
    config.optimizer.layer_decay = 0.75
    config.optimizer.warmup_epochs = 3.0
    config.optimizer.min_learning_rate = 1e-6
    config.training.epochs = 30
    config.training.batch_size = 32
    config.training.label_smoothing = 0.1
    return config


RECIPES = {"vanilla": vanilla, "cutmix": cutmix, "finetune": finetune}


def recipe(name, model):
    """The configuration of a recipe for a model.

    Raises:
        ValueError: If there is no such recipe; it lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; recipes are {', '.join(RECIPES)}.")
    return RECIPES[name](model)
