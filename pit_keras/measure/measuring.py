"""What one model costs, measured in a process of its own:

    python -m pit_keras.measure.measuring '{"model": "pit_s", "measures": ["cost"], ...}'

with the fields of `Task`. It prints a JSON object a line: the machine, then each measure's columns
as soon as they are known. `pit_keras.measure.cost_table` starts it and reads them.
"""

import dataclasses
import json
import statistics
import sys
import time

# Each measure and the columns that it fills. Memory comes before what would leave freed memory
# behind in the process; what is likeliest to fail comes last.
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
    """What to measure.

    Attributes:
        model: Name of the model.
        measures: Some of `MEASURES`.
        image_size: Height and width of the model's images.
        reference_size: Height and width of the reference's.
        batch_size: Images of a batch, for all but latency, whose batch is one image.
        precision: Name of Keras' dtype policy.
        repeats: Timed calls of each model.
    """

    model: str
    measures: tuple
    image_size: tuple
    reference_size: tuple
    batch_size: int
    precision: str
    repeats: int


def cost(task):
    """Trained parameters, and multiply-accumulates of one image."""
    from pit_keras.models.cost import count_macs, count_parameters

    model = _model(task.model, task.image_size)
    return {"parameters": count_parameters(model), "macs": count_macs(model)}


def memory(task):
    """MiB that a batch adds at its peak to what the device holds once the model is built.

    In inference, and in a training step with the optimizer's moments and the gradients.
    """
    from pit_keras.measure.machine import memory_in_use, peak_memory

    model = _model(task.model, task.image_size)
    images, labels = _batch(task.image_size, task.batch_size)
    before = memory_in_use()
    inference = peak_memory(_inference(model, images)) - before
    training = peak_memory(_training(model, images, labels)) - before
    return {"inference_mib": round(inference / MIB), "training_mib": round(training / MIB)}


def throughput(task):
    """Images per second of inference, and how many times the reference's that is."""
    seconds, ratio = _compared(task, task.batch_size, lambda *batch: _inference(*batch[:2]))
    return {"images_per_second": round(task.batch_size / seconds, 1), "throughput_ratio": ratio}


def latency(task):
    """Milliseconds of inference on one image; the ratio is the reference's over them."""
    seconds, ratio = _compared(task, 1, lambda *batch: _inference(*batch[:2]))
    return {"latency_ms": round(1000 * seconds, 2), "latency_ratio": ratio}


def training(task):
    """Milliseconds of a training step; the ratio is the reference's over them."""
    seconds, ratio = _compared(task, task.batch_size, _training)
    return {"training_step_ms": round(1000 * seconds, 1), "training_ratio": ratio}


def medians_in_turn(calls, repeats):
    """Median seconds of each of some functions, called A B A B ... after two calls untimed."""
    seconds = [[] for _ in calls]
    for turn in range(_WARM_UP_CALLS + repeats):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if turn >= _WARM_UP_CALLS:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def _compared(task, batch_size, call_of):
    """Median seconds of a call of the model, and the reference's for as many images over them."""
    sizes = {REFERENCE: task.reference_size, task.model: task.image_size}
    names = [task.model] if task.model == REFERENCE else [task.model, REFERENCE]
    calls = [call_of(_model(name, sizes[name]), *_batch(sizes[name], batch_size)) for name in names]
    medians = medians_in_turn(calls, task.repeats)
    return medians[0], round(medians[-1] / medians[0], 3)


def _model(name, image_size):
    from pit_keras.create import create_model

    return create_model(name, input_shape=(*image_size, 3))


def _batch(image_size, count):
    """Random images (B, H, W, 3) and labels (B,)."""
    import numpy as np

    images = np.random.default_rng(0).normal(size=(count, *image_size, 3)).astype("float32")
    return images, np.arange(count) % 1000


def _inference(model, images):
    from pit_keras.measure.compiled_calls import inference_call

    return inference_call(model, images)


def _training(model, images, labels):
    from pit_keras.measure.compiled_calls import training_call

    return training_call(model, images, labels)


_FUNCTIONS = {f.__name__: f for f in (cost, memory, throughput, latency, training)}


def main(arguments):
    fields = json.loads(arguments)
    for size in ("image_size", "reference_size"):
        fields[size] = tuple(fields[size])
    task = Task(**fields)
    try:
        import keras

        from pit_keras.measure.machine import description

        keras.config.set_dtype_policy(task.precision)
        _print(machine=description())
        for name in (name for name in MEASURES if name in task.measures):
            _print(measure=name, columns=_FUNCTIONS[name](task))
    except Exception as error:  # whatever it is, it becomes the reason in the model's row
        _print(problem=f"{type(error).__name__}: {error}")
        sys.exit(1)


def _print(**message):
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
