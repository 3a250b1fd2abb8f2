"""PiT-S here against timm's PyTorch model: inference at batch 1 and 16, a training step at 16.

    pip install -e .[train] torch timm
    python benchmarks/compare_timm.py --output=results/compare_timm.csv

Both run in this one process, two threads, float32, in turn (A B A B ...), so that a machine whose
speed drifts slows both alike. The CSV holds medians and their ratio, timm's eager time over ours:
higher is better. A training step is forward, cross-entropy, backward and AdamW on both sides.
"""

import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

import keras
import numpy as np
import tensorflow as tf
import timm
import torch
from absl import app, flags
from csv_rows import write_rows

import pit_keras
from pit_keras.models import tracing_for_xla

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "pit_s", "A PiT of create_model that timm has as NAME_224.")
flags.DEFINE_integer("repeats", 15, "Timed calls of each side and each row.", lower_bound=3)
flags.DEFINE_integer("train_batch_size", 16, "Images of a training step.", lower_bound=1)
flags.DEFINE_string("output", "results/compare_timm.csv", "The CSV to write.")

LEARNING_RATE = 1e-3


def main(_):
    torch.set_num_threads(THREADS)
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    ours, theirs = pit_keras.create_model(FLAGS.model), timm.create_model(f"{FLAGS.model}_224")
    pit_keras.load_pytorch_weights(ours, theirs.state_dict())

    rows = [
        compare(f"inference, batch {batch}", *inference(ours, theirs, batch)) for batch in (1, 16)
    ]
    batch = FLAGS.train_batch_size
    rows.append(compare(f"training step, batch {batch}", *training(ours, theirs, batch)))
    write_rows(rows, pathlib.Path(FLAGS.output))


def images_of(batch):
    return np.random.default_rng(0).normal(size=(batch, 224, 224, 3)).astype("float32")


def inference(ours, theirs, batch):
    """One call of each side, as functions without arguments that wait for their result."""
    images = images_of(batch)
    ours_images, theirs_images = tf.constant(images), torch.tensor(images).permute(0, 3, 1, 2)
    theirs_images = theirs_images.contiguous()
    predict = tf.function(lambda x: ours(x, training=False))
    theirs.eval()

    def their_call():
        with torch.inference_mode():
            return theirs(theirs_images).numpy()

    return lambda: predict(ours_images).numpy(), their_call


def training(ours, theirs, batch):
    images, labels = images_of(batch), np.arange(batch) % 1000
    return our_training(ours, images, labels), their_training(theirs, images, labels)


def our_training(model, images, labels):
    images, labels = tf.constant(images), tf.constant(labels)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step():
        with tracing_for_xla(), tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: step().numpy()


def their_training(model, images, labels):
    model.train()
    images = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def compare(name, ours, theirs):
    """Times both in turn and returns a row of medians in milliseconds and their ratio."""
    for warm_up in (ours, theirs, ours, theirs):
        warm_up()
    times = {ours: [], theirs: []}
    for _ in range(FLAGS.repeats):
        for call, seconds in times.items():
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    ours_ms, theirs_ms = (1000 * statistics.median(seconds) for seconds in times.values())
    row = {
        "model": FLAGS.model,
        "what": name,
        "pit_keras_ms": round(ours_ms, 1),
        "timm_ms": round(theirs_ms, 1),
        "speed_over_timm": round(theirs_ms / ours_ms, 2),
    }
    print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
    return row


if __name__ == "__main__":
    app.run(main)
