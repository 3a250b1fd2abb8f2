"""Flags of `pit-keras sweep` beside those of `pit-keras train`."""

import functools

from absl import flags

from pit_keras.commands.absl_flags import numbers_of
from pit_keras.commands.training_flags import TRAIN, config_from_flags

# Spelt here, as `equal_cost` imports TensorFlow, and a wrong flag should not wait for that.
FAMILY_NAMES = ("resnet50", "resnet50_no_pooling", "pit", "vit")
PATCH_SIZES = ("16", "8", "4")
MOST_MACS = 1e12  # a hundred times PiT-B
# Fields that a sweep decides itself.
DECIDED = (
    *(f"model.{name}" for name in ("name", "weights", "frozen_stages", "patch_size", "stride")),
    *(f"model.{name}" for name in ("head_dim", "base_width", "stem_stride")),
    "training.seed",
)


def define(values):
    into = {"flag_values": values}
    flags.DEFINE_list("families", None, f"Some of {', '.join(FAMILY_NAMES)}.", **into)
    flags.DEFINE_list("macs", None, "Multiply-accumulates of an image: 2e6,4e6,8e6.", **into)
    flags.DEFINE_integer("seeds", 3, "Runs of each network, with seeds 0, 1, ...", 1, **into)
    flags.DEFINE_enum(
        "patch_size",
        "16",
        PATCH_SIZES,
        "For ViT, PiT and the ResNet without pooling; PiT's stride is half of it, ResNet's stem "
        "stride a fourth. 16 is for 224 x 224, 8 and 4 are for small images.",
        **into,
    )


SWEEP = TRAIN._replace(
    recipes=("vanilla", "cutmix", "deit"),  # others need weights or a teacher of each network
    # What a sweep decides itself, or what has no meaning for many runs.
    withheld=("model", "seed", "weights", "teacher", "workers", "worker", "profile", "preview"),
    withheld_fields=(*TRAIN.withheld_fields, *DECIDED),
    define=define,
)


def options(values):
    """Arguments of `pit_keras.measure.equal_cost.plan_sweep`, by name, from parsed flags."""
    for name in SWEEP.withheld:
        if values[name].present:
            raise ValueError(f"--{name} has no meaning for a sweep, which makes many runs.")
    for path in DECIDED:
        if values[f"config.{path}"].present:
            raise ValueError(f"--config.{path} is decided by the sweep; leave it out.")
    if "multi_worker" in (values.distribute, values["config.training.distribute"].value):
        raise ValueError("--distribute of a sweep must be none or mirrored: it has one machine.")
    families = values.families or []
    if not families or len(set(families)) < len(families) or set(families) - set(FAMILY_NAMES):
        raise ValueError(
            f"--families must be some of {','.join(FAMILY_NAMES)}, each once; got "
            f"{','.join(families)!r}."
        )
    macs = numbers_of("macs", values.macs or [])
    if not macs or not all(0 < number <= MOST_MACS for number in macs):
        raise ValueError(f"--macs must be positive numbers of at most {MOST_MACS:g}, such as 2e6.")
    return {
        "families": families,
        "targets": macs,
        "seeds": values.seeds,
        "patch_size": int(values.patch_size),
        "config_of": functools.partial(config_from_flags, values),
    }
