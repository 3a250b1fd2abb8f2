"""Families of networks trained at equal cost: what pooling does (section 3, figures 2 and 3).

A family is a network at any width. The widths nearest to given numbers of multiply-accumulates are
trained with several seeds, each in a run folder of its own.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable

from pit_keras.config.fields import Config, validate
from pit_keras.models.cost import count_macs, count_parameters, shapes_only
from pit_keras.runs.comparison import read_history
from pit_keras.runs.run_folder import RunFolder
from pit_keras.training.assembly import model_of

FIRST_WIDTH = 8  # any: the costs of all widths follow from those of two
FAR_FROM_TARGET = 0.1  # of the target; narrow networks have few widths to choose from


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks that differ in their width alone."""

    model: str
    width: str  # the field of `ModelConfig` that is varied
    # From a patch size to fields of `ModelConfig` that keep the grids of all families in the
    # proportion that they have at 224 x 224 with 16 x 16 patches.
    grid_fields: Callable[[int], dict[str, int]]


FAMILIES = {
    "resnet50": Family("resnet50", "base_width", lambda patch: {"stem_stride": patch // 4}),
    "resnet50_no_pooling": Family(
        "resnet50_no_pooling", "base_width", lambda patch: {"patch_size": patch}
    ),
    "pit": Family("pit_ti", "head_dim", lambda patch: {"patch_size": patch, "stride": patch // 2}),
    "vit": Family("vit_ti", "head_dim", lambda patch: {"patch_size": patch, "stride": patch}),
}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    family: str
    width: int
    target: float  # the multiply-accumulates that the width was chosen for
    macs: int
    parameters: int
    config: Config
    folder: RunFolder

    @property
    def is_done(self):
        """Whether its results and its model are there."""
        return self.folder.finished and self.folder.model.exists()

    @property
    def described(self):
        """The network in words, with the target if its cost is far from that."""
        far = abs(self.macs - self.target) > FAR_FROM_TARGET * self.target
        asked = f" (the nearest to {self.target / 1e6:.3g} M)" if far else ""
        seed = self.config.training.seed
        return (
            f"{self.family} of width {self.width}, {self.macs / 1e6:.3g} M MACs{asked}, seed {seed}"
        )


def plan_sweep(families, targets, seeds, patch_size, config_of, source, output_dir):
    """The `PlannedRun`s of a sweep, cheapest first, so that an interrupted one shows all families.

    Args:
        families: Names in `FAMILIES`.
        targets: Multiply-accumulates of one image that the networks should have.
        seeds: How many runs of each network, with seeds 0, 1, ...
        patch_size: 16 at 224 x 224, less for smaller images.
        config_of: From a model's name to the `Config` that all its runs share.
    """
    planned = []
    for target in sorted(targets):
        for name in families:
            shared = config_of(FAMILIES[name].model)
            for field, value in FAMILIES[name].grid_fields(patch_size).items():
                setattr(shared.model, field, value)
            width = width_for(name, target, shared, source)
            if any((run.family, run.width) == (name, width) for run in planned):
                raise ValueError(
                    f"Two costs need the same {name}, of width {width}; leave one out."
                )
            cost = _cost(_of_width(shared, name, width), source)
            for seed in range(seeds):
                config = _of_width(shared, name, width, seed)
                folder = RunFolder(pathlib.Path(output_dir) / f"{name}_{width}_seed{seed}")
                validate(config)
                folder.check(config)
                planned.append(PlannedRun(name, width, target, *cost, config, folder))
    return planned


def width_for(name, target, config, source):
    """The width at which a family's multiply-accumulates come nearest to a number.

    They are a quadratic of the width without a constant term: a product of two widths in each
    inner layer, of a width and the number of colours or of classes in the first and last. So they
    follow from two networks.
    """
    widths = (FIRST_WIDTH, 2 * FIRST_WIDTH)
    first, second = (_cost(_of_width(config, name, width), source)[0] / width for width in widths)
    square = (second - first) / FIRST_WIDTH
    linear = first - square * FIRST_WIDTH

    def macs(width):
        return (square * width + linear) * width

    if macs(1) > 2 * target:
        raise ValueError(f"No {name} has as few as {target:g} MACs; the narrowest has {macs(1):g}.")
    exact = (math.sqrt(linear**2 + 4 * square * target) - linear) / (2 * square)
    below = max(1, math.floor(exact))
    return min((below, below + 1), key=lambda width: abs(macs(width) - target))


def _cost(config, source):
    """Multiply-accumulates and parameters."""
    with shapes_only():
        model = model_of(config, source)
    return count_macs(model), count_parameters(model)


def _of_width(config, name, width, seed=0):
    model = dataclasses.replace(config.model, **{FAMILIES[name].width: width})
    training = dataclasses.replace(config.training, seed=seed)
    return dataclasses.replace(config, model=model, training=training)


def sweep_rows(planned):
    """A row for each finished run of a sweep, after its last epoch.

    Training metrics are means over that epoch, of augmented images while the weights still change;
    validation metrics are exact.
    """
    return [
        {
            "family": run.family,
            "model": run.config.model.name,
            "width": run.width,
            "macs_target": f"{run.target:g}",
            "macs": run.macs,
            "parameters": run.parameters,
            "seed": run.config.training.seed,
            "epochs": run.config.training.epochs,
            **_last_epoch(run.folder),
        }
        for run in planned
        if run.is_done
    ]


def _last_epoch(folder):
    try:
        last = read_history(folder.history)[-1]
        return {name: last[name] for name in ("loss", "top1", "val_loss", "val_top1")}
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(
            f"{folder.history} is lost or damaged; delete its folder and repeat the command."
        ) from error
