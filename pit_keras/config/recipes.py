"""Training settings, each as its difference from a base: the paper's for classifiers (section 4.1,
table 2) and for detectors (section 4.2, table 4), and one to fine-tune on a folder of images.

The command, cost and accuracy of each are in docs/recipes/; the top-1 to expect on ImageNet is in
the paper's table 2 (`results/paper.csv`). No recipe was trained on ImageNet to the end here.
"""

import math

from pit_keras.config.fields import Config

# PiT-B warms up longer, and alone has repeated augmentation (section 4.1).
_PIT_B = ("pit_b", "pit_b_distilled")


def vanilla(model):
    """Random resized crop and flip, nothing else: the base of all settings."""
    config = Config(recipe="vanilla")
    config.model.name = model
    config.optimizer.warmup_epochs = 10.0 if model in _PIT_B else 5.0
    return config


def cutmix(model):
    """`vanilla` and CutMix on every batch."""
    config = vanilla(model)
    config.recipe = "cutmix"
    config.data.cutmix_alpha = 1.0
    return config


def deit(model):
    """`vanilla` with DeiT's setting (Touvron et al., arXiv 2012.12877).

    DeiT's colour jitter of 0.3 never acted, as timm leaves it out beside RandAugment; here the two
    together are refused. PiT-B sees three views of a third of the images in each epoch (Hoffer et
    al., CVPR 2020).
    """
    config = vanilla(model)
    config.recipe = "deit"
    config.model.drop_path_rate = 0.1
    config.data.views = 3 if model in _PIT_B else 1
    config.data.rand_augment = True
    config.data.erasing = 0.25
    config.data.mixup_alpha = 0.8
    config.data.cutmix_alpha = 1.0
    config.training.epochs = 300
    config.training.label_smoothing = 0.1
    config.training.ema_decay = 0.99996
    return config


def distill(model):
    """`deit` and a teacher for the distillation token: DeiT's hard distillation.

    The teacher, RegNetY-16GF, costs more than the student's own training, except for PiT-B. On
    other data than ImageNet train a teacher first and give its run folder, --teacher=PATH.
    """
    config = deit(model)
    config.recipe = "distill"
    config.distillation.kind = "hard"
    config.distillation.teacher = "regnety_160"
    return config


def finetune(model):
    """From pretrained weights to a small data set in a few epochs; this project's own recipe.

    The PiT paper fine-tunes no classifier. Layer decay, label smoothing and drop path are those
    common for vision transformers (BEiT, arXiv 2106.08254; MAE, arXiv 2111.06377). The learning
    rate of 8e-3 for 512 images is 5e-4 for a batch of 32: BEiT's and MAE's 2e-3 or so, scaled with
    the root of the batch. On a hundred scanned digits a fourth of it was too little.
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


def photos(model, images=1000, weights="imagenet"):
    """A folder of 50 to 50,000 photographs; this project's own recipe.

    Batch and epochs follow the number of training images, so that small folders get enough updates.
    Otherwise it is `finetune`; from random weights it is `vanilla`, with about twice the epochs.
    """
    config = finetune(model) if weights else vanilla(model)
    config.recipe = "photos"
    config.model.weights = weights
    config.data.crop_scale = (0.35, 1.0)
    config.training.batch_size = 2 ** min(max(round(math.log2(images / 16)), 2), 5)
    config.training.label_smoothing = 0.1
    times, fewest, most = (600, 5, 50) if weights else (1200, 8, 120)
    epochs = min(max(round(times / math.sqrt(images)), fewest), most)
    config.training.epochs = epochs
    config.optimizer.warmup_epochs = epochs / 10
    config.optimizer.learning_rate, config.optimizer.scaled_from = 5e-4, None
    config.optimizer.min_learning_rate = 1e-6
    return config


def detr(model):
    """The detector's: DETR's (Carion et al., arXiv 2005.12872) at half its image size.

    The batch is that of published DETR, and the rates do not scale with it, as in DETR's code. The
    backbone starts from ImageNet's weights; ResNet-50 keeps its stem, first stage and
    BatchNormalization. The AP to expect on COCO is in the paper's table 4; no detector was trained
    to the end here.
    """
    config = Config(recipe="detr")
    config.model.name, config.model.weights = model, "imagenet"
    config.model.frozen_stages = 1 if model == "detr_resnet50" else 0
    config.data.dataset, config.data.image_size = "coco/2017", (400, 600)
    config.optimizer.name, config.optimizer.schedule = "adamw", "drop"
    config.optimizer.learning_rate, config.optimizer.scaled_from = 1e-4, None
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.weight_decay, config.optimizer.decay_all = 1e-4, True
    config.optimizer.clip_norm = 0.1
    config.training.epochs, config.training.batch_size = 150, 64
    return config


RECIPES = {each.__name__: each for each in (vanilla, cutmix, deit, distill, finetune, photos, detr)}
DETECTION_RECIPES = ("detr",)
CLASSIFICATION_RECIPES = tuple(name for name in RECIPES if name not in DETECTION_RECIPES)


def recipe(name: str, model: str, **data) -> Config:
    """The configuration of a recipe for a model; `photos` takes its `images` and `weights` too."""
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe {name!r}; recipes are {', '.join(RECIPES)}.")
    return RECIPES[name](model, **data)
