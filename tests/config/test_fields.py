import pytest

from pit_keras.config.fields import Config, conflicts, field_paths, set_field, validate
from pit_keras.config.recipes import recipe


def test_json_round_trip_is_exact():
    config = Config()
    config.data.image_size = (160, 224)
    config.model.patch_size = 4
    config.optimizer.learning_rate = 1 / 3
    again = Config.from_json(config.to_json())
    assert again == config
    assert isinstance(again.data.image_size, tuple)


def test_a_whole_number_becomes_a_float_where_floats_are_kept():
    config = Config()
    config.optimizer.learning_rate, config.data.crop_scale = 1, (0.5, 1)
    checked = validate(config)
    assert checked == config
    assert '"learning_rate": 1.0' in checked.to_json()
    assert repr(checked.data.crop_scale) == "(0.5, 1.0)"
    assert Config.from_json(config.to_json()).to_json() == checked.to_json()


def test_unknown_fields_are_named_with_the_nearest():
    config = Config()
    with pytest.raises(
        ValueError, match=r"'optimizer.learning_rat'; did you mean optimizer.learning_rate"
    ):
        set_field(config, "optimizer.learning_rat", 1.0)
    with pytest.raises(ValueError, match=r"'optimizer'"):  # a part is no field
        set_field(config, "optimizer", 1.0)
    with pytest.raises(ValueError, match=r"'optimizer\.speed'"):
        Config.from_json('{"optimizer": {"speed": 1}}')


def test_a_field_that_came_later_keeps_its_default():
    config = Config()
    config.training.epochs = 7
    text = config.to_json().replace('    "seed": 0,\n', "")
    assert '"seed"' not in text
    assert Config.from_json(text) == config


def test_a_missing_section_is_named():
    with pytest.raises(ValueError, match=r"it lacks model, data, optimizer, training\.$"):
        Config.from_json('{"recipe": "vanilla"}')


def test_an_ill_typed_field_is_named():
    text = Config().to_json().replace('"seed": 0', '"seed": "zero"')
    with pytest.raises(ValueError, match=r"training\.seed must be .* integer; got 'zero'"):
        Config.from_json(text)


def test_conflicts_are_said_in_words():
    config, other = Config(), Config()
    other.training.epochs = 7
    other.data.dataset = "digits"
    other.training.keep_checkpoints = 3  # which changes no result
    assert conflicts(config, other) == (
        "data.dataset is 'imagenet2012' there and 'digits' here; "
        "training.epochs is 100 there and 7 here"
    )
    assert conflicts(config, Config()) == ""


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.crop_scale", (0.5, 0.1), "the lowest value and then"),
        ("data.crop_scale", (0.0, 1.0), "greater than 0"),
        ("data.crop_scale", (0.5, 1.1), "less than or equal to 1"),
        ("data.crop_aspect", (2.0, 1.0), "the lowest value and then"),
        ("data.eval_crop", 1.5, "equal to 1"),
        ("data.holdout", 0.0, "greater than 0"),
        ("data.fold", (3, 2), "a number and how many folds"),
        ("data.fold", (1, 1), "a number and how many folds"),
        ("training.patience", 0, "greater than 0"),
        ("training.best_metric", "AP", "one of loss, top1, top5"),
        ("data.holdout", 1.0, "less than 1"),
        ("data.image_size", (224, 0), "greater than 0"),
        ("data.std", (1.0, 0.0, 1.0), "greater than 0"),
        ("data.cutmix_alpha", -1.0, "or equal to 0"),
        ("data.mixup_alpha", -1.0, "or equal to 0"),
        ("data.mix_mode", "pixel", "'batch' or 'element'"),
        ("data.erasing", 1.5, "equal to 1"),
        ("data.rand_augment_magnitude", 11.0, "equal to 10"),
        ("data.rand_augment_std", -1.0, "or equal to 0"),
        ("data.views", 0, "greater than 0"),
        ("data.color_jitter", 1.5, "equal to 1"),
        ("training.ema_decay", 1.0, "less than 1"),
        ("training.ema_decay", -0.1, "or equal to 0"),
        ("optimizer.clip_norm", 0.0, "greater than 0"),
        ("distillation.kind", "medium", "'none', 'hard' or 'soft'"),
        ("distillation.teacher", "pit_s", "None with distillation.kind none"),
        ("distillation.alpha", 1.5, "equal to 1"),
        ("distillation.alpha", 0.3, "0.5 with distillation.kind none"),
        ("distillation.teacher_weights", "a.keras", "'imagenet' with distillation.kind none"),
        ("distillation.tau", 0.0, "greater than 0"),
        ("distillation.tau", 2.0, "1.0 unless distillation.kind is soft"),
        ("optimizer.learning_rate", 0.0, "greater than 0"),
        ("optimizer.learning_rate", float("inf"), "finite"),
        ("optimizer.warmup_epochs", 100.0, "less than the 100 epochs"),
        ("optimizer.weight_decay", -0.1, "or equal to 0"),
        ("optimizer.warmup_learning_rate", -1e-6, "or equal to 0"),
        ("optimizer.min_learning_rate", -1e-5, "or equal to 0"),
        ("optimizer.beta_1", 1.0, "less than 1"),
        ("optimizer.beta_2", -0.1, "or equal to 0"),
        ("optimizer.epsilon", 0.0, "greater than 0"),
        ("optimizer.delta", -1.0, "or equal to 0"),
        ("optimizer.wd_ratio", 1.5, "equal to 1"),
        ("training.epochs", 0, "greater than 0"),
        ("training.epochs", 10**15, "or equal to 1000000"),
        ("data.image_size", (10**6, 224), "or equal to 16384"),
        ("model.head_dim", 10**7, "or equal to 16384"),
        ("training.batch_size", -1, "greater than 0"),
        ("training.eval_batch_size", -1, "greater than 0"),
        ("training.eval_batch_size", 0, "greater than 0"),
        ("training.label_smoothing", 1.0, "less than 1"),
        ("training.keep_checkpoints", 1, "equal to 2"),
        ("training.checkpoint_every_steps", 0, "greater than 0"),
        ("training.checkpoint_every_minutes", -1.0, "greater than 0"),
        ("training.checkpoint_every_minutes", float("nan"), "finite"),
        ("training.log_every_steps", 0, "greater than 0"),
        ("training.accumulate", 0, "greater than 0"),
        ("training.jit", "yes", "'auto', 'on' or 'off'"),
        ("training.seed", -1, "or equal to 0"),
        ("training.seed", 2**32, "less than 4294967296"),
        ("data.dataset", "", "digits, folder:PATH"),
        ("data.dataset", "folder:", "digits, folder:PATH"),
        ("model.weights", "", "imagenet or the path"),
        ("model.frozen_stages", -1, "or equal to 0"),
        ("model.frozen_stages", 1, "0 without model.weights"),
        ("optimizer.layer_decay", 0.0, "greater than 0"),
        ("optimizer.layer_decay", 1.1, "equal to 1"),
        ("training.epochs", 2.5, "integer; got 2.5"),
        ("training.epochs", True, "integer; got True"),
        ("data.flip", 1, "boolean; got 1"),
        ("model.depths", (1, "2"), "integer; got '2'"),
        ("model.depths", (1, 0, 1), "greater than 0"),
        ("model.patch_size", 0, "greater than 0"),
        ("model.drop_path_rate", 1.0, "less than 1"),
        ("model.dropout", -0.1, "or equal to 0"),
        ("data.std", (1.0, 1.0), "more values"),
        ("data.std", (1.0, 1.0, 1.0, 1.0), "fewer values"),
        ("optimizer.name", "adam", "'adamp' or 'adamw'"),
        ("optimizer.schedule", "step", "'cosine' or 'drop'"),
        ("optimizer.schedule", "drop", "'cosine' for a classifier, pit_s"),
        ("optimizer.scaled_from", 0, "greater than 0"),
        ("detection.l1_weight", 1.0, "5.0 for a classifier, pit_s"),
        ("detection.freeze_norms", False, "None for a classifier"),
        ("training.distribute", "tpu", "'none', 'mirrored' or 'multi_worker'"),
        ("training.precision", "float64", "'float32', 'mixed_bfloat16' or 'mixed_float16'"),
    ],
)
def test_values_out_of_range_are_named(path, value, message):
    config = Config()
    validate(config)
    assert path in field_paths(config)
    set_field(config, path, value)
    with pytest.raises(ValueError, match=f"{path} must .*{message}"):
        validate(config)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.cutmix_alpha", 1.0, "0.0 for a detector, detr_pit_s"),
        ("data.mixup_alpha", 0.8, "0.0 for a detector"),
        ("data.mix_mode", "element", "'batch' for a detector"),
        ("data.rand_augment", True, "False for a detector"),
        ("data.rand_augment_std", 0.0, "0.5 for a detector"),
        ("data.color_jitter", 0.3, "0.0 for a detector"),
        ("data.erasing", 0.25, "0.0 for a detector"),
        ("data.views", 3, "1 for a detector"),
        ("data.crop_scale", (0.3, 1.0), r"\(0.08, 1.0\) for a detector"),
        ("data.crop_aspect", (1.0, 1.0), "for a detector"),
        ("data.eval_crop", 1.0, "0.9 for a detector"),
        ("data.holdout", 0.2, "0.1 for a detector"),
        ("data.image_size", (600, 400), "the short side and then the long one"),
        ("training.label_smoothing", 0.1, "0.0 for a detector"),
        ("training.jit", "on", "off or auto"),
        ("optimizer.layer_decay", 0.75, "1.0 for a detector"),
        ("optimizer.delta", 0.2, "0.1 with adamw"),
        ("optimizer.wd_ratio", 0.2, "0.1 with adamw"),
        ("optimizer.min_learning_rate", 1e-6, "1e-05 with the schedule drop"),
        ("distillation.alpha", 0.3, "0.5 "),
        ("detection.drop_at", 0.0, "greater than 0"),
        ("detection.backbone_rate", -0.1, "or equal to 0"),
        ("detection.no_object_weight", 0.0, "greater than 0"),
        ("detection.l1_weight", -1.0, "or equal to 0"),
        ("detection.giou_weight", float("inf"), "finite"),
    ],
)
def test_values_without_a_meaning_for_a_detector_are_named(path, value, message):
    config = recipe("detr", "detr_pit_s")
    validate(config)
    set_field(config, path, value)
    with pytest.raises(ValueError, match=f"{path} must .*{message}"):
        validate(config)


def test_a_detector_has_no_teacher():
    config = recipe("detr", "detr_pit_s")
    config.distillation.kind, config.distillation.teacher = "hard", "resnet50"
    with pytest.raises(ValueError, match=r"distillation\.kind must be 'none' for a detector"):
        validate(config)


def test_what_a_cosine_and_random_weights_exclude():
    config = recipe("detr", "detr_pit_s")
    config.optimizer.schedule, config.detection.drop_at = "cosine", 0.5
    with pytest.raises(ValueError, match=r"drop_at must be 0\.66.* with the schedule cosine"):
        validate(config)
    config.detection.drop_at, config.detection.freeze_norms = 2 / 3, True
    validate(config)
    config.model.weights = None
    with pytest.raises(ValueError, match=r"freeze_norms must be None or False without model.wei"):
        validate(config)


def test_colour_jitter_and_rand_augment_exclude_each_other():
    config = Config()
    config.data.color_jitter = 0.3
    validate(config)
    config.data.rand_augment = True
    with pytest.raises(ValueError, match=r"color_jitter must be 0 with data.rand_augment"):
        validate(config)


def test_distillation_needs_a_teacher():
    config = Config()
    config.distillation.kind = "soft"
    with pytest.raises(ValueError, match=r"model\.name must be a '_distilled' model, whose second"):
        validate(config)
    config.model.name = "pit_s_distilled"
    with pytest.raises(ValueError, match=r"distillation\.teacher must be a model's name or path"):
        validate(config)
    config.distillation.teacher, config.distillation.tau = "resnet50", 3.0
    validate(config)
    config.distillation.teacher = "detr_resnet50"
    with pytest.raises(ValueError, match=r"distillation\.teacher must be a classifier"):
        validate(config)
