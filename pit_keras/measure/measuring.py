"""The cost of one model, measured in a process of its own:

    python -m pit_keras.measure.measuring '{"model": "pit_s", "measures": ["cost"], ...}'

with the fields of `Task`. It prints a JSON object per line for `pit_keras.measure.cost_table`: the
machine, then each measure's columns as soon as they are known.
"""

import dataclasses
import json
import statistics
import sys
import time

import keras
import numpy as np

from pit_keras.create import create_model
from pit_keras.measure.compiled_calls import inference_call, training_call
from pit_keras.measure.machine import description, memory_in_use, peak_memory
from pit_keras.models.cost import count_macs, count_parameters

# Each measure and its columns. Memory comes before measures that leave freed memory in the process;
# the likeliest to fail comes last.
MEASURES = {
    "cost": ("parameters", "macs"),
    "memory": ("inference_mib", "training_mib"),
    "throughput": ("images_per_second", "throughput_ratio"),
    "latency": ("latency_ms", "latency_ratio"),
    "training": ("training_step_ms", "training_ratio"),
}
# Measured in turn with every model, so that a machine whose speed drifts slows both alike.
REFERENCE = "pit_s"
MIB = 2**20
_WARM_UP_CALLS = 2


@dataclasses.dataclass(frozen=True)
class Task:
    """What to measure."""

    model: str
    measures: tuple  # of `MEASURES`
    image_size: tuple  # height and width
    reference_size: tuple  # those of the reference's images
    batch_size: int  # latency always has one image
    precision: str  # Keras' dtype policy
    repeats: int  # timed calls of each model


def cost(task):
    """Trained parameters, and multiply-accumulates of one image."""
    model = _model(task.model, task.image_size)
    return {"parameters": count_parameters(model), "macs": count_macs(model)}


def memory(task):
    """MiB that a batch adds at its peak to the memory of the built model.

    In inference, and in a training step with the optimizer's moments and the gradients.
    """
    model = _model(task.model, task.image_size)
    images, labels = _batch(task.image_size, task.batch_size)
    before = memory_in_use()
    inference = peak_memory(inference_call(model, images)) - before
    training = peak_memory(training_call(model, images, labels)) - before
    return {"inference_mib": round(inference / MIB), "training_mib": round(training / MIB)}


def throughput(task):
    """Images per second of inference, and the ratio to the reference's."""
    seconds, ratio = _compared(task, task.batch_size, _inference_call)
    return {"images_per_second": round(task.batch_size / seconds, 1), "throughput_ratio": ratio}


def latency(task):
    """Milliseconds of inference on one image, and the ratio of the reference's to them."""
    seconds, ratio = _compared(task, 1, _inference_call)
    return {"latency_ms": round(1000 * seconds, 2), "latency_ratio": ratio}


def training(task):
    """Milliseconds of a training step, and the ratio of the reference's to them."""
    seconds, ratio = _compared(task, task.batch_size, training_call)
    return {"training_step_ms": round(1000 * seconds, 1), "training_ratio": ratio}


def medians_in_turn(calls, repeats):
    """Median seconds of each of some functions, called A B A B ... after two untimed calls each."""
    seconds = [[] for _ in calls]
    for turn in range(_WARM_UP_CALLS + repeats):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if turn >= _WARM_UP_CALLS:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def _compared(task, batch_size, call_of):
    """Median seconds of a call of the model, and the ratio of the reference's to them."""
    sizes = {REFERENCE: task.reference_size, task.model: task.image_size}
    names = [task.model] if task.model == REFERENCE else [task.model, REFERENCE]
    calls = [call_of(_model(name, sizes[name]), *_batch(sizes[name], batch_size)) for name in names]
    medians = medians_in_turn(calls, task.repeats)
    return medians[0], round(medians[-1] / medians[0], 3)


def _model(name, image_size):
    return create_model(name, input_shape=(*image_size, 3))


def _batch(image_size, count):
    """Random images (B, H, W, 3) and labels (B,)."""
    images = np.random.default_rng(0).normal(size=(count, *image_size, 3)).astype("float32")
    return images, np.arange(count) % 1000


def _inference_call(model, images, _):
    return inference_call(model, images)


def main(arguments):
    fields = json.loads(arguments)
    for size in ("image_size", "reference_size"):
        fields[size] = tuple(fields[size])
    task = Task(**fields)
    try:
        keras.config.set_dtype_policy(task.precision)
        _print(machine=description())
        for measure in (cost, memory, throughput, latency, training):  # as in `MEASURES`
            if measure.__name__ in task.measures:
                _print(measure=measure.__name__, columns=measure(task))
    except Exception as error:  # whatever it is, it becomes the reason in the model's row
        _print(problem=f"{type(error).__name__}: {error}")
        sys.exit(1)


def _print(**message):
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
