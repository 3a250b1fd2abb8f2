"""The configuration of a run: plain dataclasses, one for each part of the house.

A recipe (`pit_keras.config.recipes`) is a function that returns a `Config`. Every field can be
overridden from the command line (`--config.optimizer.learning_rate=1e-3`); the configuration that
was really used is stored in the run folder as `config.json`.
"""

import dataclasses
import difflib
import json
import math
import types
import typing

from pit_keras.imagenet import IMAGENET_MEAN, IMAGENET_STD

DISTRIBUTE = ("none", "mirrored", "multi_worker")
JIT = ("auto", "on", "off")
PRECISION = ("float32", "mixed_bfloat16", "mixed_float16")
MIX_MODES = ("batch", "element")
DISTILLATION = ("none", "hard", "soft")
OPTIMIZERS = ("adamp", "adamw")
SCHEDULES = ("cosine", "drop")
DETECTOR_PREFIX = "detr_"  # what the names of all detectors begin with, and no classifier's
# Fields that may change when a run is carried on: they decide nothing of its result, but for the
# number of devices, of which a change is told.
WITHOUT_EFFECT_ON_THE_RESULT = (
    "training.distribute",
    "training.keep_checkpoints",
    "training.checkpoint_every_steps",
    "training.checkpoint_every_minutes",
    "training.log_every_steps",
)


class FieldError(ValueError):
    """A field with a wrong value.

    Attributes:
        path: The field's dotted path.
        problem: The rest of the sentence, "must be positive; got 0".
    """

    def __init__(self, path, problem):
        super().__init__(f"{path} {problem}")
        self.path, self.problem = path, problem


@dataclasses.dataclass
class ModelConfig:
    """What `pit_keras.create_model` is called with; None is the variant's own."""

    name: str = "pit_s"
    weights: str | None = None  # to start from: "imagenet" or a path, stored as given
    frozen_stages: int = 0  # the embedding and so many stages keep their weights
    patch_size: int | None = None
    stride: int | None = None
    head_dim: int | None = None
    depth: int | None = None  # ViT's blocks
    depths: tuple[int, ...] | None = None  # PiT's blocks of each stage
    heads: tuple[int, ...] | None = None  # PiT's heads of each stage
    base_width: int | None = None  # ResNet's
    stem_stride: int | None = None  # ResNet's: 4, for small images 2 or 1
    output_stride: int | None = None  # pixels between the positions of the last map
    # A detector's; what is above is then its backbone's, and so are the rates below.
    queries: int | None = None  # most objects that it finds in an image
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    hidden_width: int | None = None
    hidden_heads: int | None = None
    feed_forward: int | None = None  # width of the MLPs of encoder and decoder
    dropout: float | None = None  # in encoder and decoder
    normalize_features: bool | None = None  # of the backbone, before the encoder
    drop_rate: float = 0.0
    attention_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    @property
    def is_detector(self):
        """Whether the model finds objects, and does not classify images."""
        return self.name.startswith(DETECTOR_PREFIX)


@dataclasses.dataclass
class DataConfig:
    """Where images come from and what happens to them before the model sees them."""

    dataset: str = "imagenet2012"  # "digits", a TFDS name, "folder:PATH"; objects: "coco:PATH"
    data_dir: str | None = None  # where TFDS keeps its data sets
    holdout: float = 0.1  # share held out where the data set has no validation split
    image_size: tuple[int, int] = (224, 224)  # height, width; of a detector short and long side
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop_scale: tuple[float, float] = (0.08, 1.0)  # area share of the random resized crop
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of that crop
    flip: bool = True  # horizontal, with probability 0.5
    eval_crop: float = 0.9  # centre crop's share of the short side; DeiT's own is 0.875
    views: int = 1  # of each drawn image, see repeated augmentation; an epoch stays as long
    color_jitter: float = 0.0  # largest change of brightness, contrast and saturation, as a share
    rand_augment: bool = False  # two random operations of fifteen, before normalising
    rand_augment_magnitude: float = 9.0  # of 10
    rand_augment_std: float = 0.5  # of the magnitude
    erasing: float = 0.0  # chance that a random box of an image becomes noise
    mixup_alpha: float = 0.0  # 0: no MixUp; with CutMix too, each batch draws one of the two
    cutmix_alpha: float = 0.0  # 0: no CutMix
    mix_mode: str = (
        "batch"  # one of MIX_MODES: mix all images of a batch alike, or each its own way
    )
    skip_unreadable: bool = True  # training only; evaluation never skips


@dataclasses.dataclass
class OptimizerConfig:
    """The optimizer and its schedule; see `pit_keras.training.optimizer` and `.schedule`."""

    name: str = "adamp"  # one of OPTIMIZERS
    learning_rate: float = 5e-4
    scaled_from: int | None = 512  # images that the rate is for, in proportion; None: for any batch
    schedule: str = "cosine"  # one of SCHEDULES, after the warm-up
    warmup_epochs: float = 5.0
    warmup_learning_rate: float = 1e-6  # where the warm-up begins
    min_learning_rate: float = 1e-5  # where the cosine ends
    weight_decay: float = 0.05
    decay_all: bool = False  # biases, norms, position embedding and class tokens too
    layer_decay: float = 1.0  # the rate of each block, as a multiple of the next block's
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    delta: float = 0.1  # AdamP's
    wd_ratio: float = 0.1  # AdamP's
    clip_norm: float | None = None  # largest global norm of a step's gradients


@dataclasses.dataclass
class TrainingConfig:
    """How long, on what, and what is kept."""

    epochs: int = 100
    batch_size: int = 512  # images that pass the model at once, over all replicas
    accumulate: int = 1  # batches whose gradients are summed for one update
    eval_batch_size: int | None = None  # None: as in training
    seed: int = 0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0  # of the averaged weights that are evaluated too; 0: no averaging
    distribute: str = "none"  # one of DISTRIBUTE
    precision: str = "float32"  # one of PRECISION
    jit: str = "auto"  # one of JIT: whether XLA compiles the step
    recompute_blocks: bool = False  # gradient checkpointing: less memory, one more forward pass
    # What follows decides nothing of the result, and may change when a run is carried on.
    keep_checkpoints: int = 2
    checkpoint_every_steps: int | None = None  # updates; beside those at the end of an epoch
    checkpoint_every_minutes: float | None = 10.0
    log_every_steps: int = 50  # updates between the lines of log.jsonl and TensorBoard's points

    @property
    def images_of_update(self):
        """Images that one update learns from, over all replicas."""
        return self.batch_size * self.accumulate


@dataclasses.dataclass
class DistillationConfig:
    """What a distilled model's second head learns from; see `pit_keras.training.teacher`."""

    kind: str = "none"  # one of DISTILLATION: the teacher's class, or its probabilities
    teacher: str | None = None  # a model's name, a run folder, a .keras file or a SavedModel
    teacher_weights: str = "imagenet"  # or a path: a named teacher's; the others have their own
    alpha: float = 0.5  # the distillation's share of the loss
    tau: float = 1.0  # temperature of the soft kind


@dataclasses.dataclass
class DetectionConfig:
    """What only detectors have: DETR's augmentation, loss and treatment of the backbone."""

    # Short sides from 0.6 to 1 times image_size[0] in steps of 0.04, else always the largest.
    multi_scale: bool = True
    # Half of the images are cropped before, see `pit_keras.data.detection_augmentation`.
    random_crop: bool = True
    backbone_rate: float = 0.1  # the backbone's learning rate over the others'
    drop_at: float = 2 / 3  # share of the updates after which the schedule "drop" does so
    no_object_weight: float = 0.1
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    # BatchNormalization keeps scales and statistics; None: exactly where there are model.weights.
    freeze_norms: bool | None = None


_FIRST_SECTIONS = ("recipe", "model", "data", "optimizer", "training")  # since version 0.1.0


@dataclasses.dataclass
class Config:
    """Everything that decides a run's result. `to_json` and `from_json` are exact inverses."""

    recipe: str = "vanilla"
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    detection: DetectionConfig = dataclasses.field(default_factory=DetectionConfig)

    def to_json(self):
        """The configuration as JSON text, the form of a run folder's `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """Reads what `to_json` wrote, or an earlier version's.

        A field that came later keeps its default, which is what was done before.

        Raises:
            ValueError: If it is not JSON, names a field that does not exist, or lacks a section.
        """
        config, content = cls(), json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("A configuration is a JSON object of fields.")
        for path, value in _leaves(content):
            set_field(config, path, value)
        missing = [name for name in _FIRST_SECTIONS if name not in content]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}.")
        check_types(config)
        return config


def field_paths(config):
    """Dotted paths of all fields that hold a value: `optimizer.learning_rate`, ..."""
    return [path for path, _ in _leaves(dataclasses.asdict(config))]


def get_field(config, path):
    """Value at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def set_field(config, path, value):
    """Sets the value at a dotted path; a list becomes the tuple that the field holds.

    Raises:
        ValueError: If there is no such field; it names the nearest ones.
    """
    known = field_paths(config)
    if path not in known:
        near = difflib.get_close_matches(path, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}."
        raise ValueError(f"There is no configuration field {path!r}; {hint}")
    *parents, name = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    setattr(config, name, tuple(value) if isinstance(value, list) else value)


def differences(config, other):
    """Dotted paths whose values differ between two configurations."""
    return [
        path for path in field_paths(config) if get_field(config, path) != get_field(other, path)
    ]


def conflicts(stored, config):
    """In words, where two configurations differ in what decides a run's result; "" if nowhere."""
    return "; ".join(
        f"{path} is {get_field(stored, path)!r} there and {get_field(config, path)!r} here"
        for path in differences(stored, config)
        if path not in WITHOUT_EFFECT_ON_THE_RESULT
    )


def check_types(config):
    """Checks that every field holds what its annotation says; an integer will do as a float.

    Raises:
        FieldError: For the first that does not.
    """
    for path in field_paths(config):
        value = get_field(config, path)
        if not _has_form(value, _form(config, path)):
            raise FieldError(path, f"must be {form_of(path)}; got {_in_words(value)}.")


def form_of(path):
    """What a field holds, in words: `float`, `(int, int)`, `str or None`."""
    return _form_in_words(_form(Config(), path))


def _form(config, path):
    parent, _, name = path.rpartition(".")
    return typing.get_type_hints(type(get_field(config, parent) if parent else config))[name]


def _has_form(value, form):
    kind, parts = typing.get_origin(form), typing.get_args(form)
    if kind is types.UnionType:
        return any(_has_form(value, part) for part in parts)
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(parts) and all(map(_has_form, value, parts))
    if isinstance(value, bool) and form is not bool:
        return False
    return isinstance(value, (int, float) if form is float else form)


def _form_in_words(form):
    """`(float, float)`, `(int, ...)`, `int or None`."""
    parts = typing.get_args(form)
    if typing.get_origin(form) is types.UnionType:
        return " or ".join(map(_form_in_words, parts))
    if parts:
        return f"({', '.join('...' if part is Ellipsis else part.__name__ for part in parts)})"
    return "None" if form is types.NoneType else form.__name__


def _in_words(value):
    """A value as one would type it; the flags' parser makes a tuple of a single number too."""
    return repr(value[0]) if isinstance(value, tuple) and len(value) == 1 else repr(value)


def validate(config):
    """Checks the types and ranges of all values.

    Raises:
        FieldError: For the first value out of range; it names the field and the range.
    """
    check_types(config)
    rules = (
        *_data_rules(config.data),
        *_training_rules(config.model, config.training),
        *_optimizer_rules(config.optimizer, config.training.epochs),
        *_distillation_rules(config.distillation),
        *_task_rules(config),
    )
    for path, valid, form in rules:
        if not valid:
            raise FieldError(path, f"must be {form}; got {get_field(config, path)!r}.")


def _data_rules(data):
    """(path, whether the value is valid, what it must be) for all that has a range."""
    share = "a share between 0 and 1"
    return [
        (
            "data.dataset",
            data.dataset.strip() not in ("", "folder:", "coco:"),
            "digits, folder:PATH, for a detector coco:PATH, or the name of a TFDS data set",
        ),
        ("data.image_size", all(side > 0 for side in data.image_size), "two positive integers"),
        (
            "data.crop_scale",
            0 < data.crop_scale[0] <= data.crop_scale[1] <= 1,
            "0 < low <= high <= 1",
        ),
        ("data.crop_aspect", 0 < data.crop_aspect[0] <= data.crop_aspect[1], "0 < low <= high"),
        ("data.eval_crop", 0 < data.eval_crop <= 1, share),
        ("data.holdout", 0 < data.holdout < 1, share),
        ("data.std", all(value > 0 for value in data.std), "three positive numbers"),
        ("data.views", data.views > 0, "positive"),
        ("data.color_jitter", 0 <= data.color_jitter <= 1, share),
        (
            "data.color_jitter",
            data.color_jitter == 0 or not data.rand_augment,
            "0 with data.rand_augment, which takes its place",
        ),
        (
            "data.rand_augment_magnitude",
            0 <= data.rand_augment_magnitude <= 10,
            "a number from 0 to 10",
        ),
        ("data.rand_augment_std", 0 <= data.rand_augment_std < math.inf, "not negative"),
        ("data.erasing", 0 <= data.erasing <= 1, "a probability in [0, 1]"),
        ("data.mixup_alpha", 0 <= data.mixup_alpha < math.inf, "not negative (0 for no MixUp)"),
        ("data.cutmix_alpha", 0 <= data.cutmix_alpha < math.inf, "not negative (0 for no CutMix)"),
        ("data.mix_mode", data.mix_mode in MIX_MODES, f"one of {', '.join(MIX_MODES)}"),
    ]


def _optimizer_rules(optimizer, epochs):
    is_adamp, is_cosine = optimizer.name == "adamp", optimizer.schedule == "cosine"
    return [
        ("optimizer.name", optimizer.name in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
        ("optimizer.schedule", optimizer.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
        ("optimizer.learning_rate", 0 < optimizer.learning_rate < math.inf, "positive"),
        (
            "optimizer.scaled_from",
            optimizer.scaled_from is None or optimizer.scaled_from > 0,
            "a positive number of images, or None for a rate that is not scaled",
        ),
        (
            "optimizer.warmup_epochs",
            0 <= optimizer.warmup_epochs < epochs,
            f"not negative and less than the {epochs} epochs",
        ),
        ("optimizer.weight_decay", optimizer.weight_decay >= 0, "not negative"),
        ("optimizer.layer_decay", 0 < optimizer.layer_decay <= 1, "in (0, 1]"),
        (
            "optimizer.clip_norm",
            optimizer.clip_norm is None or 0 < optimizer.clip_norm < math.inf,
            "positive, or None for no clipping",
        ),
        *(
            (f"optimizer.{name}", means or getattr(optimizer, name) == default, f"{default} {why}")
            for name, means, why in (
                ("delta", is_adamp, "with adamw, which never projects"),
                ("wd_ratio", is_adamp, "with adamw, which never projects"),
                ("min_learning_rate", is_cosine, "with the schedule drop, which ends at a tenth"),
            )
            for default in (getattr(OptimizerConfig(), name),)
        ),
    ]


def _training_rules(model, training):
    return [
        (
            "model.weights",
            model.weights is None or model.weights.strip() != "",
            "imagenet or the path of a weights file",
        ),
        ("model.frozen_stages", model.frozen_stages >= 0, "not negative"),
        (
            "model.frozen_stages",
            model.frozen_stages == 0 or model.weights is not None,
            "0 without model.weights: random weights would stay random",
        ),
        ("training.epochs", training.epochs > 0, "positive"),
        ("training.batch_size", training.batch_size > 0, "positive"),
        ("training.accumulate", training.accumulate > 0, "positive"),
        (
            "training.eval_batch_size",
            training.eval_batch_size is None or training.eval_batch_size > 0,
            "positive",
        ),
        ("training.seed", 0 <= training.seed < 2**32, "at least 0 and less than 2**32"),
        ("training.label_smoothing", 0 <= training.label_smoothing < 1, "in [0, 1)"),
        (
            "training.ema_decay",
            0 <= training.ema_decay < 1,
            "in [0, 1); 0 for no averaged weights",
        ),
        (
            "training.keep_checkpoints",
            training.keep_checkpoints > 1,
            "2 or more, so that one is whole while another is written",
        ),
        *(
            (f"training.{name}", value is None or 0 < value < math.inf, "positive, or None")
            for name in ("checkpoint_every_steps", "checkpoint_every_minutes")
            for value in (getattr(training, name),)
        ),
        ("training.log_every_steps", training.log_every_steps > 0, "positive"),
        *(
            (f"training.{name}", getattr(training, name) in values, f"one of {', '.join(values)}")
            for name, values in (
                ("distribute", DISTRIBUTE),
                ("precision", PRECISION),
                ("jit", JIT),
            )
        ),
    ]


def _distillation_rules(distillation):
    distils = distillation.kind != "none"
    return [
        (
            "distillation.kind",
            distillation.kind in DISTILLATION,
            f"one of {', '.join(DISTILLATION)}",
        ),
        (
            "distillation.teacher",
            (distillation.teacher is not None) == distils,
            "a model's name or path with distillation.kind hard or soft, None with none",
        ),
        (
            "distillation.teacher",
            not (distillation.teacher or "").startswith(DETECTOR_PREFIX),
            "a classifier",
        ),
        (
            "distillation.teacher_weights",
            distils or distillation.teacher_weights == "imagenet",
            "imagenet where there is no teacher",
        ),
        ("distillation.alpha", 0 <= distillation.alpha <= 1, "a share between 0 and 1"),
        (
            "distillation.alpha",
            distils or distillation.alpha == 0.5,
            "0.5 where there is no teacher",
        ),
        ("distillation.tau", 0 < distillation.tau < math.inf, "positive"),
        (
            "distillation.tau",
            distillation.tau == 1 or distillation.kind == "soft",
            "1 unless distillation.kind is soft: only probabilities have a temperature",
        ),
    ]


# What has no meaning for a detector, or is not offered for one.
_CLASSIFIERS_OWN = (
    *(f"data.{name}" for name in ("holdout", "crop_scale", "crop_aspect", "eval_crop", "views")),
    *(f"data.{name}" for name in ("color_jitter", "erasing", "rand_augment")),
    *(f"data.rand_augment_{name}" for name in ("magnitude", "std")),
    *(f"data.{name}" for name in ("mixup_alpha", "cutmix_alpha", "mix_mode")),
    "optimizer.layer_decay",
    "training.label_smoothing",
    *(f"distillation.{field.name}" for field in dataclasses.fields(DistillationConfig)),
)
_DETECTORS_OWN = (
    "optimizer.schedule",  # it drops at a share that stands in the section `detection`
    *(f"detection.{field.name}" for field in dataclasses.fields(DetectionConfig)),
)


def _task_rules(config):
    """The other task's fields keep their defaults; a detector's own have their ranges."""
    is_detector, defaults = config.model.is_detector, Config()
    others = _CLASSIFIERS_OWN if is_detector else _DETECTORS_OWN
    kind = "detector" if is_detector else "classifier"
    unused = [
        (path, get_field(config, path) == default, f"{default!r} for a {kind}, {config.model.name}")
        for path in others
        for default in (get_field(defaults, path),)
    ]
    return [*unused, *(_detection_rules(config) if is_detector else ())]


def _detection_rules(config):
    detection, (short, long) = config.detection, config.data.image_size
    drops = config.optimizer.schedule == "drop"
    return [
        ("data.image_size", short <= long, "the short side and then the long one"),
        ("training.jit", config.training.jit != "on", "off or auto: XLA cannot match objects"),
        (
            "detection.backbone_rate",
            0 <= detection.backbone_rate < math.inf,
            "not negative (0 to train no weight of the backbone)",
        ),
        ("detection.drop_at", 0 < detection.drop_at <= 1, "in (0, 1]"),
        (
            "detection.drop_at",
            drops or detection.drop_at == DetectionConfig().drop_at,
            "2/3 with the schedule cosine, which does not drop",
        ),
        ("detection.no_object_weight", 0 < detection.no_object_weight < math.inf, "positive"),
        *(
            (f"detection.{name}", 0 <= getattr(detection, name) < math.inf, "not negative")
            for name in ("l1_weight", "giou_weight")
        ),
        (
            "detection.freeze_norms",
            not detection.freeze_norms or config.model.weights is not None,
            "None or False without model.weights: there are no statistics to keep",
        ),
    ]


def _leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
