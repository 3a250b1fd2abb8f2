"""Comparisons with PyTorch run where it is installed; elsewhere golden files stand in for it.

So do comparisons with foolbox, whose place a definition in NumPy takes.
The page of `pit-keras serve` is tested where there is a browser.
"""

import ctypes
import gc
import importlib.util
import os
import pathlib
import shutil
import signal
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Two test processes share the processor anyway, and programs of XLA's that use its pool of threads
# have been seen to wait for themselves: a run of these tests once did not end, the likeliest place
# being an input pipeline that XLA compiles.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
# Tests interrupt programs that they start, which inherit it if a shell has these tests ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _missing(*packages):
    return any(importlib.util.find_spec(package) is None for package in packages)


collect_ignore = []
if _missing("keras_cv", "cv2"):
    collect_ignore += [
        "evaluation/test_detection_live.py",
        "models/test_boxes_live.py",
        "plots/test_galleries.py",
    ]
if _missing("torch", "timm"):
    collect_ignore += [
        "data/test_mixing_live.py",
        "models/test_convolutional_live.py",
        "models/test_parity_live.py",
        "weights/test_adaptation_live.py",
        "weights/test_pytorch_live.py",
    ]
if _missing("torch", "transformers"):
    collect_ignore += ["training/test_detection_loss_live.py"]
if _missing("torch"):
    collect_ignore += ["test_losses_live.py"]
if _missing("jax") and _missing("torch"):
    collect_ignore += ["measure/test_measuring_live.py", "models/test_backends.py"]
if _missing("jax"):
    collect_ignore += ["models/test_distribution_live.py"]
if _missing("torch", "adamp"):
    collect_ignore += ["test_optimizers_live.py"]
if _missing("foolbox", "eagerpy"):
    collect_ignore += ["evaluation/test_fgsm_live.py"]
if _missing("playwright") or shutil.which("chromium") is None:
    collect_ignore += ["serving/test_browser.py"]

for folder in ("data", "golden", "training"):  # modules that tests elsewhere use too
    sys.path.insert(0, str(pathlib.Path(__file__).parent / folder))


def pytest_collection_modifyitems(items):
    """The longest files come first, so that in the end no process waits for another."""
    longest = ("training", "notebooks", "commands", "export")
    items.sort(key=lambda item: item.path.parent.name not in longest)


def pytest_collection_finish():
    """What was imported stays, so the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _memory_is_given_back():
    """Graphs of a file's models are freed, and what the C library keeps of them is returned."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session()  # collects garbage too
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
