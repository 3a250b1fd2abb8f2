"""The machine that a measurement was made on, and the memory of its device."""

import importlib.metadata
import os
import pathlib
import platform
import re

import keras


def description():
    """Where a row of measurements was made; the first GPU of the backend, else the processor."""
    backend = keras.backend.backend()
    packages = {"tensorflow": ["tensorflow"], "jax": ["jax", "jaxlib"], "torch": ["torch"]}[backend]
    return {
        "backend": backend,
        "device": graphics_card() or _processor(),
        "threads": _threads(backend),
        "versions": " ".join(
            f"{name} {importlib.metadata.version(name)}" for name in ("keras", *packages)
        ),
    }


def graphics_card():
    """The name of the first GPU that the backend computes on; None for the processor."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(cards[0]) if cards else {}
        return details.get("device_name", cards[0].name) if cards else None
    if backend == "jax":
        import jax

        return None if jax.default_backend() == "cpu" else jax.devices()[0].device_kind
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _processor():
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _threads(backend):
    if backend == "torch":
        import torch

        return torch.get_num_threads()
    if backend == "tensorflow":
        import tensorflow as tf

        if chosen := tf.config.threading.get_intra_op_parallelism_threads():  # 0 if nobody chose
            return chosen
    # Not every system limits a process to some of its cores.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory_in_use():
    """Bytes that the backend holds on the first GPU, else the resident memory of this process."""
    return _card_memory("current") if graphics_card() else _process_memory("VmRSS")


def peak_memory(of):
    """The largest `memory_in_use` while a function ran, in bytes.

    Calls it twice: the first call's tracing and compiling does not count, except on JAX's GPUs,
    whose record cannot be reset.
    """
    of()
    if not graphics_card():
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")
    elif keras.backend.backend() == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
    of()
    return largest_memory()


def largest_memory():
    """The largest `memory_in_use` so far, in bytes."""
    return _card_memory("peak") if graphics_card() else _process_memory("VmHWM")


def _card_memory(which):
    """What the first GPU's allocator counts: "current" or "peak"."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")[which]
    if backend == "jax":
        import jax

        key = "peak_bytes_in_use" if which == "peak" else "bytes_in_use"
        return jax.devices()[0].memory_stats()[key]
    import torch

    return torch.cuda.max_memory_allocated() if which == "peak" else torch.cuda.memory_allocated()


def _process_memory(key):
    """A line of Linux's account of this process. (`resource`'s peak begins with the parent's.)"""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        raise OSError(f"Memory of a process is measured on Linux only; this is {os.name}.")
    return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", status.read_text())[1])
