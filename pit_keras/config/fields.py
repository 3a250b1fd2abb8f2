"""The configuration of a run: one dataclass for each part, with the range of every field.

A recipe (`pit_keras.config.recipes`) returns a `Config`. Every field is a flag too
(`--config.optimizer.learning_rate=1e-3`), and a run folder keeps all of them in `config.json`.
"""

import dataclasses
import difflib
import functools
import json
import typing
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from pit_keras.config.model_names import DETECTOR_PREFIX
from pit_keras.imagenet import IMAGENET_MEAN, IMAGENET_STD

PRECISION = ("float32", "mixed_bfloat16", "mixed_float16")
# Fields without an effect on a run's result: they may change when it is resumed. (Another number of
# devices changes the result a little, and the trainer says so.)
WITHOUT_EFFECT_ON_THE_RESULT = (
    "training.distribute",
    "training.keep_checkpoints",
    "training.checkpoint_every_steps",
    "training.checkpoint_every_minutes",
    "training.log_every_steps",
)

# The metrics of an evaluation, in the order of the columns of `history.csv`.
CLASSIFIERS_METRICS = ("loss", "top1", "top5")
DETECTORS_METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")

PositiveInt = Annotated[int, Gt(0)]
LARGEST_SIZE = 2**14  # of a side, width or depth: larger ones would not fit into memory
Size = Annotated[int, Gt(0), Le(LARGEST_SIZE)]
PositiveFloat = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Le(1)]
Probability = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]


class FieldError(ValueError):
    """A wrong value of a field: its dotted `path`, and the `problem`, "must be ...; got ..."."""

    def __init__(self, path, problem):
        super().__init__(f"{path} {problem}")
        self.path, self.problem = path, problem


class _Section:
    """Fields are checked by `validate`, not when they are set."""

    __pydantic_config__: typing.ClassVar = {
        "strict": True,
        "revalidate_instances": "always",
        "allow_inf_nan": False,
    }


@dataclasses.dataclass
class ModelConfig(_Section):
    """Arguments of `pit_keras.create_model`; None stands for the variant's own value."""

    name: str = "pit_s"
    weights: str | None = None  # to start from: "imagenet" or a path, stored as given
    frozen_stages: Annotated[int, Ge(0)] = 0  # first stages, not trained
    patch_size: Size | None = None
    stride: Size | None = None
    head_dim: Size | None = None
    depth: Size | None = None  # ViT's blocks
    depths: tuple[Size, ...] | None = None  # PiT's blocks of each stage
    heads: tuple[Size, ...] | None = None  # PiT's heads of each stage
    base_width: Size | None = None  # ResNet's
    stem_stride: int | None = None  # ResNet's: 4, for small images 2 or 1
    output_stride: int | None = None  # pixels between the positions of the last map
    # A detector's; what is above is then its backbone's, and so are the rates below.
    queries: Size | None = None  # the most objects found in an image
    encoder_layers: Size | None = None
    decoder_layers: Size | None = None
    hidden_width: Size | None = None
    hidden_heads: Size | None = None
    feed_forward: Size | None = None  # width of the MLPs of encoder and decoder
    dropout: BelowOne | None = None  # in encoder and decoder
    normalize_features: bool | None = None  # of the backbone, before the encoder
    drop_rate: BelowOne = 0.0
    attention_drop_rate: BelowOne = 0.0
    drop_path_rate: BelowOne = 0.0

    @property
    def is_detector(self):
        return self.name.startswith(DETECTOR_PREFIX)

    @property
    def overrides(self):
        """The fields of the variant's row that are set, {name: value}."""
        names = [field.name for field in dataclasses.fields(self) if field.default is None]
        values = {name: getattr(self, name) for name in names if name != "weights"}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass
class DataConfig(_Section):
    """The data set, preprocessing and augmentation."""

    dataset: str = "imagenet2012"  # "digits", a TFDS name, "folder:PATH"; objects: "coco:PATH"
    data_dir: str | None = None  # where TFDS keeps its data sets
    holdout: Annotated[float, Gt(0), Lt(1)] = 0.1  # where there is no validation split
    fold: tuple[PositiveInt, PositiveInt] | None = None  # 2, 5: hold out the second fifth instead
    # Height, width; of a detector the short and the long side.
    image_size: tuple[Size, Size] = (224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD
    crop_scale: tuple[Share, Share] = (0.08, 1.0)  # area of the random resized crop
    crop_aspect: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)  # its width / height
    flip: bool = True  # horizontal, with probability 0.5
    eval_crop: Share = 0.9  # centre crop's share of the short side; DeiT's own is 0.875
    views: PositiveInt = 1  # of each drawn image (repeated augmentation); an epoch stays as long
    color_jitter: Probability = 0.0  # largest change of brightness, contrast and saturation
    rand_augment: bool = False  # two random operations of fifteen, before normalising
    rand_augment_magnitude: Annotated[float, Ge(0), Le(10)] = 9.0
    rand_augment_std: NotNegative = 0.5  # of the magnitude
    erasing: Probability = 0.0  # that a random box of an image becomes noise
    mixup_alpha: NotNegative = 0.0  # 0: no MixUp; with CutMix, each batch draws one of the two
    cutmix_alpha: NotNegative = 0.0  # 0: no CutMix
    mix_mode: Literal["batch", "element"] = "batch"  # one draw for all images of a batch, or each
    skip_unreadable: bool = True  # training only; evaluation never skips
    # Turns photographs as EXIF says; torchvision, timm and Keras leave them as they are stored.
    apply_orientation: bool = False

    def held_out(self, dataset):
        """What of a data set is for validation where no split is: a share, or (number, folds)."""
        return self.fold if self.fold and dataset == self.dataset else self.holdout


@dataclasses.dataclass
class OptimizerConfig(_Section):
    """The optimizer and its schedule; see `pit_keras.optimizers` and `schedules`."""

    name: Literal["adamp", "adamw"] = "adamp"
    learning_rate: PositiveFloat = 5e-4
    scaled_from: PositiveInt | None = 512  # images a step that the rate is for; None: for any batch
    schedule: Literal["cosine", "drop"] = "cosine"  # after the warm-up
    warmup_epochs: NotNegative = 5.0
    warmup_learning_rate: NotNegative = 1e-6  # where the warm-up begins
    min_learning_rate: NotNegative = 1e-5  # where the cosine ends
    weight_decay: NotNegative = 0.05
    decay_all: bool = False  # biases, norms, position embedding and class tokens too
    layer_decay: Share = 1.0  # the rate of each block, as a multiple of the next block's
    beta_1: BelowOne = 0.9
    beta_2: BelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    delta: NotNegative = 0.1  # AdamP's
    wd_ratio: Probability = 0.1  # AdamP's
    clip_norm: PositiveFloat | None = None  # largest global norm of a step's gradients


@dataclasses.dataclass
class TrainingConfig(_Section):
    """Length, devices and precision of the training, and its checkpoints."""

    epochs: Annotated[int, Gt(0), Le(10**6)] = 100
    patience: PositiveInt | None = None  # epochs without a better one that end the run
    # Validation metric that chooses the epoch to keep; None: top1, of detectors AP.
    best_metric: Literal[CLASSIFIERS_METRICS + DETECTORS_METRICS] | None = None
    batch_size: PositiveInt = 512  # images that pass the model at once, over all replicas
    accumulate: PositiveInt = 1  # batches whose gradients are summed for one update
    eval_batch_size: PositiveInt | None = None  # None: as in training
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    label_smoothing: BelowOne = 0.0
    ema_decay: BelowOne = 0.0  # of the averaged weights, evaluated too; 0: no averaging
    distribute: Literal["none", "mirrored", "multi_worker"] = "none"
    precision: Literal[PRECISION] = "float32"
    jit: Literal["auto", "on", "off"] = "auto"  # whether XLA compiles the step
    recompute_blocks: bool = False  # gradient checkpointing: less memory, one more forward pass
    # Two or more: one is whole while another is written.
    keep_checkpoints: Annotated[int, Ge(2)] = 2
    checkpoint_every_steps: PositiveInt | None = None  # updates; beside those at an epoch's end
    checkpoint_every_minutes: PositiveFloat | None = 10.0
    log_every_steps: PositiveInt = 50  # updates between lines of log.jsonl and TensorBoard's points

    @property
    def images_of_update(self):
        """Images that one update learns from, over all replicas."""
        return self.batch_size * self.accumulate


@dataclasses.dataclass
class DistillationConfig(_Section):
    """What a distilled model's second head learns from; see `pit_keras.training.teacher`."""

    kind: Literal["none", "hard", "soft"] = "none"  # the teacher's class, or its probabilities
    teacher: str | None = None  # a model's name, a run folder, a .keras file or a SavedModel
    teacher_weights: str = "imagenet"  # or a path; of a teacher given by name
    alpha: Probability = 0.5  # the distillation's share of the loss
    tau: PositiveFloat = 1.0  # temperature of the soft kind


@dataclasses.dataclass
class DetectionConfig(_Section):
    """A detector's augmentation, loss and treatment of the backbone, as DETR's."""

    # Short sides from 0.6 to 1 times image_size[0] in steps of 0.04, else always the largest.
    multi_scale: bool = True
    # Half of the images are cropped before, see `pit_keras.data.detection_augmentation`.
    random_crop: bool = True
    backbone_rate: NotNegative = 0.1  # its learning rate over the others'; 0: not trained
    drop_at: Share = 2 / 3  # share of the updates after which the schedule "drop" does so
    no_object_weight: PositiveFloat = 0.1
    l1_weight: NotNegative = 5.0
    giou_weight: NotNegative = 2.0
    # BatchNormalization keeps scales and statistics; None: exactly where there are model.weights.
    freeze_norms: bool | None = None


_FIRST_SECTIONS = ("recipe", "model", "data", "optimizer", "training")  # since version 0.1.0


@dataclasses.dataclass
class Config(_Section):
    """Everything that decides a run's result. `to_json` and `from_json` are exact inverses."""

    recipe: str = "vanilla"
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    detection: DetectionConfig = dataclasses.field(default_factory=DetectionConfig)

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """Reads what `to_json` wrote, or an earlier version did; ValueError for anything else.

        A field that came later keeps its default, which is what earlier versions did.
        """
        config, content = cls(), json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("A configuration is a JSON object of fields.")
        for path, value in leaves(content):
            set_field(config, path, value)
        missing = [name for name in _FIRST_SECTIONS if name not in content]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}.")
        return _checked(config)


def leaves(tree, prefix=""):
    """Pairs (dotted path, value) of a nested dict; a list becomes the tuple that a field holds."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tuple(value) if isinstance(value, list) else value


def field_paths(config):
    """Dotted paths of all fields: `optimizer.learning_rate`, ..."""
    return [path for path, _ in leaves(dataclasses.asdict(config))]


def get_field(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


def field_type(path):
    """The type of a field's values without their range: `int`, `tuple[int, ...] | None`."""
    section, _, name = path.rpartition(".")
    return typing.get_type_hints(type(get_field(Config(), section)) if section else Config)[name]


def set_field(config, path, value):
    """Sets the value at a dotted path; where there is none, a ValueError names the nearest ones."""
    known = field_paths(config)
    if path not in known:
        near = difflib.get_close_matches(path, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}."
        raise ValueError(f"There is no configuration field {path!r}; {hint}")
    parent, _, name = path.rpartition(".")
    setattr(get_field(config, parent) if parent else config, name, value)


def conflicts(stored, config):
    """The differences that decide a run's result, in words; "" if there are none."""
    there, here = (dict(leaves(dataclasses.asdict(each))) for each in (stored, config))
    return "; ".join(
        f"{path} is {there[path]!r} there and {here[path]!r} here"
        for path in here
        if here[path] != there[path] and path not in WITHOUT_EFFECT_ON_THE_RESULT
    )


def validate(config):
    """Checks the type and the range of every field, and what fields ask of each other.

    Returns a copy in which a whole number in a field of floats is a float, or raises a `FieldError`
    for the first wrong value.
    """
    checked = _checked(config)
    for paths, reason in _without_effect(config):
        for path in paths:
            value, default = get_field(config, path), get_field(Config(), path)
            if value != default:
                raise FieldError(path, f"must be {default!r} {reason}; got {value!r}.")
    for path, valid, form in _rules(config):
        if not valid:
            raise FieldError(path, f"must be {form}; got {get_field(config, path)!r}.")
    return checked


def _checked(config):
    """A copy of a configuration in which every field by itself is right."""
    # Imported here, since a command's help should not wait for it.
    from pydantic import ValidationError

    try:
        return _checker().validate_python(config)
    except ValidationError as errors:
        error = errors.errors()[0]
    path = ".".join(part for part in error["loc"] if isinstance(part, str))
    forms = {"missing": "must have more values", "too_long": "must have fewer values"}
    form = forms.get(error["type"], error["msg"].replace("Input should", "must"))
    raise FieldError(path, f"{form}; got {error['input']!r}.")


@functools.cache
def _checker():
    from pydantic import TypeAdapter

    return TypeAdapter(Config)


# Fields that have no meaning for a detector, or are not offered for one.
CLASSIFIERS_OWN = (
    *("data.holdout", "data.fold", "data.crop_scale", "data.crop_aspect", "data.eval_crop"),
    *("data.views", "data.color_jitter", "data.erasing"),
    *("data.rand_augment", "data.rand_augment_magnitude"),
    *("data.rand_augment_std", "data.mixup_alpha", "data.cutmix_alpha", "data.mix_mode"),
    *("optimizer.layer_decay", "training.label_smoothing"),
    *(f"distillation.{field.name}" for field in dataclasses.fields(DistillationConfig)),
)
DETECTORS_OWN = (
    "optimizer.schedule",  # its drop is a field of the section `detection`
    *("model.queries", "model.encoder_layers", "model.decoder_layers", "model.hidden_width"),
    *("model.hidden_heads", "model.feed_forward", "model.dropout", "model.normalize_features"),
    *(f"detection.{field.name}" for field in dataclasses.fields(DetectionConfig)),
)


def _without_effect(config):
    """Pairs (paths, reason) of fields that must keep their defaults, as nothing would use them."""
    model, optimizer, kind = config.model, config.optimizer, config.distillation.kind
    if model.is_detector:
        yield CLASSIFIERS_OWN, f"for a detector, {model.name}"
    else:
        yield DETECTORS_OWN, f"for a classifier, {model.name}"
    if optimizer.name == "adamw":
        yield ("optimizer.delta", "optimizer.wd_ratio"), "with adamw, which never projects"
    if optimizer.schedule == "drop":
        yield ("optimizer.min_learning_rate",), "with the schedule drop, which ends at a tenth"
    else:
        yield ("detection.drop_at",), "with the schedule cosine, which does not drop"
    if model.weights is None:
        yield ("model.frozen_stages",), "without model.weights: random weights would stay random"
    if kind == "none":
        own = (f"distillation.{name}" for name in ("teacher", "teacher_weights", "alpha"))
        yield own, "with distillation.kind none"
    if kind != "soft":
        yield ("distillation.tau",), "unless distillation.kind is soft"


def _rules(config):
    """Triples (path, whether its value is valid, what it must be)."""
    model, data, training = config.model, config.data, config.training
    distillation, detection, epochs = config.distillation, config.detection, training.epochs
    form = "digits, folder:PATH, for a detector coco:PATH, or the name of a TFDS data set"
    yield "data.dataset", data.dataset.strip() not in ("", "folder:", "coco:"), form
    number, folds = data.fold or (1, 2)
    yield "data.fold", number <= folds > 1, "a number and how many folds, two or more: 1,5 to 5,5"
    for name in ("crop_scale", "crop_aspect"):
        low, high = getattr(data, name)
        yield f"data.{name}", low <= high, "the lowest value and then the highest"
    jitters = data.color_jitter > 0
    yield "data.color_jitter", not (jitters and data.rand_augment), "0 with data.rand_augment"
    is_blank = model.weights is not None and not model.weights.strip()
    yield "model.weights", not is_blank, "imagenet or the path of a weights file"
    warmup = config.optimizer.warmup_epochs
    yield "optimizer.warmup_epochs", warmup < epochs, f"less than the {epochs} epochs"
    metrics = DETECTORS_METRICS if model.is_detector else CLASSIFIERS_METRICS
    is_metric = training.best_metric in (None, *metrics)
    yield "training.best_metric", is_metric, f"one of {', '.join(metrics)}"
    teacher = distillation.teacher
    if distillation.kind != "none":
        form = "a '_distilled' model, whose second head learns from the teacher"
        yield "model.name", model.name.endswith("_distilled"), form
        yield "distillation.teacher", teacher is not None, "a model's name or path"
        yield ("distillation.teacher", not str(teacher).startswith(DETECTOR_PREFIX), "a classifier")
    if model.is_detector:
        short, long = data.image_size
        yield "data.image_size", short <= long, "the short side and then the long one"
        yield "training.jit", training.jit != "on", "off or auto: XLA cannot match objects"
        has_statistics = model.weights is not None
        form = "None or False without model.weights: there are no statistics to keep"
        yield "detection.freeze_norms", has_statistics or not detection.freeze_norms, form
