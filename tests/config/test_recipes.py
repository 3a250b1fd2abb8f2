import pytest

from pit_keras.config.fields import field_paths, get_field, validate
from pit_keras.config.recipes import (
    CLASSIFICATION_RECIPES,
    DETECTION_RECIPES,
    RECIPES,
    recipe,
)


def differences(base, config):
    """The values of a configuration that its base does not have, {path: value}."""
    values = {path: get_field(config, path) for path in field_paths(config)}
    return {path: value for path, value in values.items() if value != get_field(base, path)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_knows_its_name_and_model(name):
    model = {"detr": "detr_vit_s", "distill": "pit_xs_distilled"}.get(name, "pit_xs")
    config = recipe(name, model)
    validate(config)
    assert config.recipe == name
    assert config.model.name == model


def test_recipes_are_for_classifiers_or_for_detectors():
    assert CLASSIFICATION_RECIPES == ("vanilla", "cutmix", "deit", "distill", "finetune", "photos")
    assert {*CLASSIFICATION_RECIPES, *DETECTION_RECIPES} == set(RECIPES)


def test_detr_is_detrs_at_half_its_size():
    config = recipe("detr", "detr_pit_s")
    optimizer, training, detection = config.optimizer, config.training, config.detection
    assert (optimizer.name, optimizer.schedule, optimizer.decay_all) == ("adamw", "drop", True)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (1e-4, 1e-4)
    assert (optimizer.scaled_from, optimizer.warmup_epochs) == (None, 0)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert optimizer.learning_rate * detection.backbone_rate == pytest.approx(1e-5)
    assert optimizer.clip_norm == 0.1
    assert (training.epochs, training.batch_size, detection.drop_at) == (150, 64, 2 / 3)
    assert (config.data.image_size, config.data.flip) == ((400, 600), True)
    assert (config.model.weights, config.model.frozen_stages) == ("imagenet", 0)
    assert detection.freeze_norms is None
    weights = detection.no_object_weight, detection.l1_weight, detection.giou_weight
    assert weights == (0.1, 5, 2)
    assert recipe("detr", "detr_resnet50").model.frozen_stages == 1


def test_vanilla_is_the_papers():
    config = recipe("vanilla", "pit_s")
    optimizer, data, training = config.optimizer, config.data, config.training
    assert (training.epochs, data.image_size) == (100, (224, 224))
    assert (optimizer.learning_rate, optimizer.weight_decay) == (5e-4, 0.05)
    assert (optimizer.warmup_epochs, optimizer.warmup_learning_rate) == (5, 1e-6)
    assert optimizer.min_learning_rate == 1e-5
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert (optimizer.delta, optimizer.wd_ratio) == (0.1, 0.1)
    assert (data.crop_scale, data.crop_aspect, data.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), True)
    assert data.cutmix_alpha == training.label_smoothing == config.model.drop_path_rate == 0


def test_cutmix_differs_from_vanilla_by_cutmix():
    vanilla, cutmix = recipe("vanilla", "pit_s"), recipe("cutmix", "pit_s")
    assert differences(vanilla, cutmix) == {"recipe": "cutmix", "data.cutmix_alpha": 1.0}


def test_deit_is_deits():
    vanilla, deit = recipe("vanilla", "pit_s"), recipe("deit", "pit_s")
    assert differences(vanilla, deit) == {
        "recipe": "deit",
        "model.drop_path_rate": 0.1,
        "data.rand_augment": True,
        "data.erasing": 0.25,
        "data.mixup_alpha": 0.8,
        "data.cutmix_alpha": 1.0,
        "training.epochs": 300,
        "training.label_smoothing": 0.1,
        "training.ema_decay": 0.99996,
    }
    assert (deit.data.rand_augment_magnitude, deit.data.rand_augment_std) == (9, 0.5)
    assert (deit.data.mix_mode, deit.data.color_jitter) == ("batch", 0)


def test_pit_b_alone_sees_three_views():
    for name in ("pit_b", "pit_b_distilled"):
        assert recipe("deit", name).data.views == recipe("distill", name).data.views == 3
    for name in ("pit_s", "vit_b", "pit_xs_distilled"):
        assert recipe("deit", name).data.views == 1
    assert recipe("cutmix", "pit_b").data.views == 1


def test_distill_differs_from_deit_by_its_teacher():
    deit, distill = recipe("deit", "pit_s"), recipe("distill", "pit_s")
    changed = ["recipe", "distillation.kind", "distillation.teacher"]
    assert list(differences(deit, distill)) == changed
    settings = distill.distillation
    assert (settings.kind, settings.teacher, settings.teacher_weights) == (
        "hard",
        "regnety_160",
        "imagenet",
    )
    assert (settings.alpha, settings.tau) == (0.5, 1.0)


def test_finetune_starts_from_pretrained_weights_and_suits_a_small_folder():
    config = recipe("finetune", "pit_b")
    assert config.model.weights == "imagenet"
    assert (config.training.epochs, config.training.batch_size) == (30, 32)
    assert (config.optimizer.layer_decay, config.model.frozen_stages) == (0.75, 0)
    assert config.optimizer.warmup_epochs == 3
    assert config.training.label_smoothing == config.model.drop_path_rate == 0.1


@pytest.mark.parametrize("weights", ["imagenet", None])
def test_photos_follows_the_number_of_images(weights):
    updates = []
    for images in (5, 50, 180, 1800, 18_000, 50_000, 10**6):
        config = recipe("photos", "pit_s", images=images, weights=weights)
        validate(config)
        assert (config.model.weights, config.optimizer.scaled_from) == (weights, None)
        assert config.training.batch_size <= images
        assert config.optimizer.warmup_epochs == config.training.epochs / 10
        updates.append(config.training.epochs * (images // config.training.batch_size))
    assert min(updates[1:]) >= 500  # `cutmix` would make 100 of 50 images


def test_pit_b_warms_up_longer():
    assert recipe("cutmix", "pit_b").optimizer.warmup_epochs == 10
    assert recipe("vanilla", "pit_b_distilled").optimizer.warmup_epochs == 10


def test_unknown_recipe():
    with pytest.raises(ValueError, match="'deit3'; recipes are vanilla, cutmix, deit, distill,"):
        recipe("deit3", "pit_s")
