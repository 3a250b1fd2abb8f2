"""Trains with the same recipe by Keras' `fit` and, on TensorFlow, by the Trainer.

    python benchmarks/fit.py
    KERAS_BACKEND=jax python benchmarks/fit.py --seeds=0

`step_ms` is the median over the epochs but the first, from the first step's end to the last one's.
"""

import json
import statistics
import tempfile
import time

from command import parse, write_rows

SIZES = {"patch_size": 4, "stride": 4, "head_dim": 16, "depths": (2, 2, 2)}
SMALL = {**SIZES, "head_dim": 4, "depths": (1, 1, 1)}


def main(arguments=None):
    import keras

    backend = keras.backend.backend()
    options = parse(
        __doc__,
        arguments,
        small={"epochs": 2, "seeds": (0,), "batch_size": 718},
        seeds=(0, 1, 2),
        epochs=12,
        batch_size=64,
        output=f"results/fit_{backend}.csv",
    )
    ways = {"fit": fit, **({"trainer": train} if backend == "tensorflow" else {})}
    rows = []
    for seed in options.seeds:
        for way, run in ways.items():
            accuracy, seconds = run(recipe_of(seed, options))
            step = statistics.median(seconds[1:])
            rows.append({
                "backend": backend, "way": way, "seed": seed, "epochs": options.epochs,
                "val_accuracy": round(accuracy, 4), "step_ms": round(1000 * step, 1),
            })  # fmt: skip
    write_rows(rows, options.output)


def recipe_of(seed, options):
    """`cutmix` for the embedded digits."""
    import pit_keras

    recipe = pit_keras.recipe("cutmix", model="pit_ti")
    for name, value in (SMALL if options.small else SIZES).items():
        setattr(recipe.model, name, value)
    recipe.data.dataset, recipe.data.image_size = "digits", (32, 32)
    recipe.data.flip, recipe.data.crop_scale, recipe.data.eval_crop = False, (0.6, 1.0), 1.0
    recipe.optimizer.learning_rate, recipe.optimizer.warmup_epochs = 1.6e-2, 1.0
    recipe.training.batch_size, recipe.training.epochs = options.batch_size, options.epochs
    recipe.training.seed = seed
    return recipe


def fit(recipe):
    """Held-out accuracy after the last epoch, and the seconds of a step in each epoch."""
    import keras

    import pit_keras

    training, rates = recipe.training, recipe.optimizer
    keras.utils.set_random_seed(training.seed)
    data = {"image_size": 32, "batch_size": training.batch_size, "recipe": recipe}
    train = pit_keras.data.digits(**data, seed=training.seed)
    val = pit_keras.data.digits(**data, training=False)
    model = pit_keras.create_model(
        "pit_ti", classes=10, input_shape=(32, 32, 3), **recipe.model.overrides
    )
    rate = pit_keras.schedules.WarmUpCosine(
        rates.learning_rate * training.batch_size / rates.scaled_from,
        training.epochs * len(train),
        warmup_steps=len(train),
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(pit_keras.optimizers.AdamP(rate, weight_decay=0.05), loss)
    ends = []  # of each epoch's steps
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: ends.append([]),
        on_train_batch_end=lambda batch, logs: ends[-1].append(time.perf_counter()),
    )
    model.fit(train, epochs=training.epochs, callbacks=[watch], verbose=0)
    model.compile(loss=loss, metrics=["accuracy"])
    accuracy = model.evaluate(val, verbose=0, return_dict=True)["accuracy"]
    return accuracy, [(times[-1] - times[0]) / max(len(times) - 1, 1) for times in ends]


def train(recipe):
    """As `fit`, by the Trainer."""
    from pit_keras.data.labelled_images import open_source
    from pit_keras.training.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, open_source("digits"), folder, verbose=False)
        trainer.run()
        events = map(json.loads, trainer.folder.log.read_text().splitlines())
        epochs = [event for event in events if event["event"] == "epoch"]
    images = recipe.training.batch_size
    return epochs[-1]["val_top1"], [images / each["images_per_second"] for each in epochs]


if __name__ == "__main__":
    main()
