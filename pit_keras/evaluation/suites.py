"""The robustness tests of the paper's table 5, each under its name."""

import dataclasses
import fractions
import warnings

from pit_keras.data.labelled_images import open_source, oriented
from pit_keras.evaluation.backgrounds import HOW_TO_GET_IT, evaluate_backgrounds
from pit_keras.evaluation.classification import evaluate_source, standard_counts, with_crop
from pit_keras.evaluation.fgsm import DEFAULT_EPSILON, fgsm_columns, fgsm_counts
from pit_keras.evaluation.imagenet_a import TFDS, evaluate_imagenet_a
from pit_keras.evaluation.occlusion import occlusion_columns, occlusion_counts


@dataclasses.dataclass(frozen=True)
class SuiteSettings:
    """What the suites measure, and on what."""

    dataset: str | None = None  # of `standard`, `occlusion` and `fgsm`; None for the model's own
    data_dir: str | None = None
    split: str = "val"
    crop: float | None = None  # share of the short side; None for the model's own
    batch_size: int = 64
    occlusion_sizes: tuple[int, ...] | None = None  # see `occlusion_columns`
    occlusion_fill: str = "mean"
    epsilons: tuple[fractions.Fraction, ...] = (DEFAULT_EPSILON,)  # see `fgsm_columns`
    imagenet_a: str = TFDS  # see `open_imagenet_a`
    backgrounds: str | None = None  # the folder `bg_challenge`
    progress: bool = True


def _standard(trained, settings):
    return {"standard": _evaluate(trained, settings, standard_counts)["top1"]}


def _occlusion(trained, settings):
    fill = settings.occlusion_fill
    boxes = occlusion_columns(trained.data.image_size, settings.occlusion_sizes, fill)
    measured = _evaluate(trained, settings, occlusion_counts(boxes, trained.data, fill))
    return {column: measured[column] for column in boxes}


def _fgsm(trained, settings):
    epsilons = fgsm_columns(settings.epsilons)
    measured = _evaluate(trained, settings, fgsm_counts(epsilons, trained.data))
    for column in epsilons:
        if measured[f"loss_{column}"] <= measured["loss"]:
            warnings.warn(
                f"The attack {column} did not raise the loss; ignore its result.", stacklevel=2
            )
    return {column: measured[column] for column in epsilons}


def _imagenet_a(trained, settings):
    measured = evaluate_imagenet_a(
        trained,
        settings.imagenet_a,
        data=with_crop(trained.data, settings.crop),
        data_dir=settings.data_dir,
        batch_size=settings.batch_size,
        progress=settings.progress,
    )
    return {name: measured[name] for name in ("imagenet_a", "imagenet_a_all_classes")}


def _backgrounds(trained, settings):
    if settings.backgrounds is None:
        raise ValueError(HOW_TO_GET_IT)
    return evaluate_backgrounds(
        trained, settings.backgrounds, batch_size=settings.batch_size, progress=settings.progress
    )


def _evaluate(trained, settings, counts):
    name = trained.data.dataset if settings.dataset is None else settings.dataset
    source = open_source(
        name,
        data_dir=settings.data_dir or trained.data.data_dir,
        holdout=None if settings.split == "all" else trained.data.held_out(name),
    )
    return evaluate_source(
        trained,
        oriented(source, trained.data.apply_orientation),
        settings.split,
        batch_size=settings.batch_size,
        crop=settings.crop,
        progress=settings.progress,
        counts=counts,
    )


# In the order of the paper's table.
SUITES = {
    "standard": _standard,
    "occlusion": _occlusion,
    "imagenet_a": _imagenet_a,
    "backgrounds": _backgrounds,
    "fgsm": _fgsm,
}


def checked_suites(names):
    """Names of suites in the order of `SUITES`, each once."""
    for name in names:
        if name not in SUITES:
            raise ValueError(f"Unknown suite {name!r}; known are {', '.join(SUITES)}.")
    return tuple(name for name in SUITES if name in names)


def run_suites(trained, names, settings):
    """Measures a trained model on some suites; one that cannot run does not stop the others.

    Returns the accuracies by column, fractions, and by suite the reasons of those that cannot run.
    """
    accuracies, reasons = {}, {}
    for name in checked_suites(names):
        try:
            accuracies |= SUITES[name](trained, settings)
        except (ValueError, OSError, ImportError) as error:  # what a user can fix, such as no data
            reasons[name] = str(error)
    return accuracies, reasons
