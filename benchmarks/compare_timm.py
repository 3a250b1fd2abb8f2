"""PiT-S here against timm's PyTorch model: inference, and a training step with AdamW.

    pip install -e .[train] torch timm
    python benchmarks/compare_timm.py

Both run in float32 with two threads, in turn in one process. The CSV has median times, and timm's
over ours: higher is better.
"""

from command import parse, write_rows
from timm_model import pair, torch_call, use_two_threads

LEARNING_RATE = 1e-3


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"image_size": 32, "repeats": 1, "batches": (1,), "train_batch_size": 1},
        model="pit_s",
        image_size=224,
        repeats=15,
        batches=(1, 16),
        train_batch_size=16,
        output="results/compare_timm.csv",
    )
    if not options.small:
        use_two_threads()
    import numpy as np

    from pit_keras.measure.measuring import inference_call

    ours, theirs = pair(options)
    shape = (options.image_size, options.image_size, 3)
    drawn, rows = np.random.default_rng(0), []
    for batch in options.batches:
        images = drawn.normal(size=(batch, *shape)).astype("float32")
        calls = inference_call(ours, images), theirs and torch_call(theirs, images)
        rows.append(compare(f"inference, batch {batch}", calls, options))
    batch = options.train_batch_size
    images = drawn.normal(size=(batch, *shape)).astype("float32")
    labels = np.arange(batch) % 1000
    calls = our_training(ours, images, labels), theirs and their_training(theirs, images, labels)
    rows.append(compare(f"training step, batch {batch}", calls, options))
    write_rows(rows, options.output)


def our_training(model, images, labels):
    import keras
    import tensorflow as tf

    images, labels = tf.constant(images), tf.constant(labels)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: step().numpy()


def their_training(model, images, labels):
    import torch

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


def compare(what, calls, options):
    from pit_keras.measure.measuring import medians_in_turn

    ours, *theirs = medians_in_turn([call for call in calls if call], options.repeats)
    row = {"model": options.model, "what": what, "pit_keras_ms": round(1000 * ours, 1)}
    row["timm_ms"] = round(1000 * theirs[0], 1) if theirs else ""
    return {**row, "speed_over_timm": round(theirs[0] / ours, 2) if theirs else ""}


if __name__ == "__main__":
    main()
