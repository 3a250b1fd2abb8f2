"""Speed of the three detectors side by side: forward pass, training step, and the matching in it.

    pip install -e .[train]
    python benchmarks/detectors.py

It is the speed in the PiT paper's table 4. Ratios are over the first model; more is faster.
All take turns in one process; times are medians. The training step is the trainer's, with the
losses of all decoder layers. Images are noise; boxes are drawn, about seven an image as in COCO.
`matching_share` is the time of costs and assignments over that of the step.
"""

from command import new_model, parse, write_rows

from pit_keras.models.detr import COCO_CLASSES as CLASSES

MOST_BOXES, MEAN_BOXES = 100, 7


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"models": ("detr_pit_s",), "image_size": (48, 64), "batch_size": 1, "repeats": 1},
        models=("detr_resnet50", "detr_vit_s", "detr_pit_s"),
        image_size=(400, 600),
        batch_size=8,
        inference_batch_size=1,
        repeats=5,
        precision="float32",
        output="results/detectors.csv",
    )
    import keras

    from pit_keras.measure.machine import description
    from pit_keras.measure.measuring import medians_in_turn

    keras.config.set_dtype_policy(options.precision)
    calls = [calls_of(name, options) for name in options.models]
    medians = [
        medians_in_turn([of_model[kind] for of_model in calls], options.repeats)
        for kind in ("inference", "training", "matching")
    ]
    inference, training, _ = (of_kind[0] for of_kind in medians)
    rows = [
        {
            "model": name,
            "image_size": "x".join(map(str, options.image_size)),
            "inference_batch_size": options.inference_batch_size,
            "images_per_second": round(options.inference_batch_size / forward, 3),
            "inference_ratio": round(inference / forward, 2),
            "batch_size": options.batch_size,
            "training_step_ms": round(1000 * step),
            "training_ratio": round(training / step, 2),
            "matching_ms": round(1000 * matching, 1),
            "matching_share": round(matching / step, 4),
            "precision": options.precision,
            "repeats": options.repeats,
            **description(),
        }
        for name, forward, step, matching in zip(options.models, *medians, strict=True)
    ]
    write_rows(rows, options.output)


def calls_of(name, options):
    """{kind: function that waits for its result}."""
    import tensorflow as tf

    from pit_keras.config.recipes import recipe
    from pit_keras.models import variant_of
    from pit_keras.training.assembly import optimizer_of
    from pit_keras.training.detection_task import DetectionLoss
    from pit_keras.training.matching import match
    from pit_keras.training.step import compiled_step

    config = recipe("detr", name)
    config.training.batch_size, config.training.precision = options.batch_size, options.precision
    model = new_model(name, options, classes=CLASSES, input_shape=(*options.image_size, 3))
    optimizer, loss = optimizer_of(config, model, steps=1000), DetectionLoss(config, model)
    step = compiled_step(config, model, loss, optimizer, tf.distribute.get_strategy(), jit=False)
    batch = drawn_batch(options.batch_size, options.image_size)
    images = tf.random.stateless_normal(
        (options.inference_batch_size, *options.image_size, 3), seed=(0, 0)
    )
    predict = tf.function(lambda x: model(x, training=False), autograph=False)
    shape = (options.batch_size, variant_of(name).decoder_layers, MOST_BOXES)
    logits = tf.random.stateless_normal((*shape, CLASSES + 1), seed=(0, 1))
    boxes = tf.random.stateless_uniform((*shape, 4), seed=(0, 2))
    matching = tf.function(match, autograph=False)
    return {
        "inference": lambda: predict(images)["boxes"].numpy(),
        "training": lambda: float(step(batch, tf.constant(0, tf.int64), tf.zeros(2))["loss"]),
        "matching": lambda: matching(logits, boxes, batch["boxes"], batch["labels"]).numpy(),
    }


def drawn_batch(size, image_size):
    """A batch as `pit_keras.data.detection_pipeline` gives it, without padding."""
    import numpy as np
    import tensorflow as tf

    drawn = np.random.default_rng(0)
    counts = np.clip(drawn.geometric(1 / MEAN_BOXES, size), 1, 60)
    sizes = drawn.uniform(0.05, 0.4, (size, MOST_BOXES, 2))
    centres = sizes / 2 + drawn.uniform(size=sizes.shape) * (1 - sizes)
    labels = drawn.integers(0, CLASSES, (size, MOST_BOXES))
    labels[np.arange(MOST_BOXES) >= counts[:, None]] = -1
    return {
        "image": tf.constant(drawn.normal(size=(size, *image_size, 3)), "float32"),
        "padding_mask": tf.zeros((size, *image_size), "bool"),
        "boxes": tf.constant(np.concatenate([centres, sizes], axis=-1), "float32"),
        "labels": tf.constant(labels, "int32"),
    }


if __name__ == "__main__":
    main()
