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
from keras import ops

from pit_keras.create import create_model
from pit_keras.losses import soft_cross_entropy
from pit_keras.measure.machine import description, memory_in_use, peak_memory
from pit_keras.models.cost import count_macs, count_parameters, shapes_only
from pit_keras.optimizers import AdamP

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
LEARNING_RATE = 1e-4  # small, so that no number of steps on one batch ends in infinity
_WARM_UP_CALLS = 2


@dataclasses.dataclass(frozen=True)
class Task:
    model: str
    measures: tuple  # of `MEASURES`
    image_size: tuple  # height and width
    reference_size: tuple  # those of the reference's images
    batch_size: int  # latency always has one image
    precision: str  # Keras' dtype policy
    repeats: int  # timed calls of each model


def cost(task):
    """Trained parameters, and multiply-accumulates of one image."""
    with shapes_only():
        model = create_model(task.model, input_shape=(*task.image_size, 3))
    return {"parameters": count_parameters(model), "macs": count_macs(model)}


def memory(task):
    """MiB that a batch adds at its peak to the memory of the built model.

    In inference, and in a training step with the optimizer's moments and the gradients.
    """
    model = create_model(task.model, input_shape=(*task.image_size, 3))
    images, labels = _batch(task.image_size, task.batch_size)
    before = memory_in_use()
    peaks = {
        "inference_mib": peak_memory(inference_call(model, images)),
        "training_mib": peak_memory(training_call(model, images, labels)),
    }
    return {name: round((peak - before) / 2**20) for name, peak in peaks.items()}


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


def inference_call(model, images):
    """A function that returns the logits of images (B, H, W, 3), float32."""
    jit, images = _uses_xla(model), ops.convert_to_tensor(images)
    model.compile(jit_compile=jit)

    def call():
        return model.predict_on_batch(images)  # as an array, which waits for the device

    return call


def training_call(model, images, labels, optimizer=None):
    """A function that trains on images and integer labels (B,), by default with AdamP.

    It returns the cross-entropy before the step.
    """
    jit, images = _uses_xla(model), ops.convert_to_tensor(images)
    targets = ops.one_hot(labels, model.output_shape[-1])  # (B,) -> (B, classes)
    optimizer = optimizer or AdamP(LEARNING_RATE, weight_decay=0.05)
    model.compile(optimizer, soft_cross_entropy, jit_compile=jit)  # scales float16's loss

    def call():
        loss = model.train_on_batch(images, targets)
        # The loss is there before the update is; the last variable is updated last.
        ops.convert_to_numpy(model.trainable_variables[-1])
        return float(loss)

    return call


def _uses_xla(model):
    """The trainer's own choice on TensorFlow; JAX always compiles, PyTorch runs eagerly."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        return backend == "jax"
    from pit_keras.training.assembly import uses_xla

    return uses_xla("auto", keras.config.dtype_policy().name, model)


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
    batches = [_batch(sizes[name], batch_size) for name in names]  # first what may be too large
    models = [create_model(name, input_shape=(*sizes[name], 3)) for name in names]
    calls = [call_of(model, *batch) for model, batch in zip(models, batches, strict=True)]
    medians = medians_in_turn(calls, task.repeats)
    return medians[0], round(medians[-1] / medians[0], 3)


def _batch(image_size, count):
    """Random images (B, H, W, 3) and labels (B,)."""
    images = np.random.default_rng(0).normal(size=(count, *image_size, 3)).astype("float32")
    return images, np.arange(count) % 1000


def _inference_call(model, images, _):
    return inference_call(model, images)


def main(arguments):
    task = Task(**json.loads(arguments))
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
