"""The names of all models, which are known without Keras; `models/registry.py` builds them."""

import difflib
import fnmatch

DETECTOR_PREFIX = "detr_"  # of the names of all detectors, and of no classifier
DISTILLED = "_distilled"

_TRANSFORMERS = ("pit_ti", "pit_xs", "pit_s", "pit_b", "vit_ti", "vit_s", "vit_b")
MODEL_NAMES = (
    *_TRANSFORMERS,
    *(name + DISTILLED for name in _TRANSFORMERS),
    *("resnet50", "resnet50_no_pooling", "resnet101", "resnet152", "regnety_160"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"efficientnet_b{size}" for size in range(6)),
    *("detr_pit_s", "detr_vit_s", "detr_resnet50"),
)


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, sorted: `list_models("pit_*")`."""
    return sorted(fnmatch.filter(MODEL_NAMES, pattern))


def check_model_name(name):
    """Raises ValueError, with the nearest names and all others, for the name of no model."""
    if name in MODEL_NAMES:
        return
    usual = str(name).lower().replace("-", "_")
    hint = did_you_mean(usual, MODEL_NAMES, n=1 if usual in MODEL_NAMES else 3)
    raise ValueError(f"Unknown model {name!r}. {hint}Models are: {', '.join(list_models())}.")


def did_you_mean(given, known, n=1):
    near = difflib.get_close_matches(given, known, n)
    return f"Did you mean {' or '.join(near)}? " if near else ""
