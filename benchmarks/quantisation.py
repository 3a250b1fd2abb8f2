"""Ways to make a PiT's TFLite file small and fast, and what each does to its logits.

    pip install -e .[train,export]
    python train/train.py --recipe=cutmix --model=pit_ti --dataset=digits --image_size=112 \
        --batch_size=32 --epochs=14 --output_dir=runs/digits112 --config.data.flip=false \
        --config.data.crop_scale='(0.6, 1.0)' --config.data.crop_aspect='(0.8, 1.25)' \
        --config.data.eval_crop=1.0 --config.optimizer.learning_rate=8e-3 \
        --config.optimizer.warmup_epochs=2
    python benchmarks/quantisation.py --model=runs/digits112

Errors of the logits, agreement and accuracy are those of the trained model on its data set's
validation split, with 128 images of its training split for calibration. Size and latency are those
of `--timed`, with random weights at its own size. All files are timed in turn (A B C A B C ...);
the CSV holds medians. Compare them with one another only: the machine may be shared.
"""

import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import calibrator, recipe_manager
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.utils import qsv_utils
from csv_rows import write_rows

import pit_keras
from pit_keras.config.fields import DataConfig
from pit_keras.data.labelled_images import open_source
from pit_keras.data.preprocessing import normalise, resize_and_crop
from pit_keras.export.saved_model import save_function
from pit_keras.export.tflite import TFLITE_KINDS, export_tflite, run_tflite
from pit_keras.models.inference import logits_only
from pit_keras.runs.trained_model import TrainedModel, load_trained_model

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A run folder.", required=True)
flags.DEFINE_string("dataset", "digits", "The data set that it was trained on.")
flags.DEFINE_string("timed", "pit_s", "A model of create_model.")
flags.DEFINE_integer("repeats", 30, "Timed calls of each file.", lower_bound=3)
flags.DEFINE_string("output", "results/quantisation.csv", "The CSV to write.")

CALIBRATION_IMAGES, TIMED_CALIBRATION_IMAGES = 128, 32
NORM = ["MEAN", "SQUARED_DIFFERENCE", "RSQRT", "NEG", "SUB", "MUL"]
NOT_PRODUCTS = [*NORM, "ADD", "SOFTMAX", "GELU", "BATCH_MATMUL", "RESHAPE", "TRANSPOSE", "SPLIT"]
NOT_PRODUCTS += ["STRIDED_SLICE", "CONCATENATION", "PAD"]
PRODUCTS = ["FULLY_CONNECTED", "CONV_2D"]
CLASSIFIERS = "head|StatefulPartitionedCall"


class Ways:
    """Each way's name and a function from (trained, calibration) to a file's bytes."""

    def __init__(self, trained, calibration, folder):
        self.trained, self.calibration, self.folder = trained, calibration, folder
        self.saved = str(folder / "saved")
        data, model = trained.data, logits_only(trained.model)

        def classify(images):
            return {"logits": model(normalise(images, data.mean, data.std), training=False)}

        images = tf.TensorSpec((1, *data.image_size, 3), tf.uint8, name="images")
        save_function(classify, [images], model, self.saved)
        self.float32 = self.converter().convert()

    def all(self):
        builtins = tf.lite.OpsSet.TFLITE_BUILTINS
        int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        exported = {f"export_tflite {kind}": lambda k=kind: self.export(k) for kind in TFLITE_KINDS}
        tried = {
            "converter: int8": lambda: self.calibrated().convert(),
            "converter: int16 activations": lambda: self.calibrated(int16, builtins).convert(),
            "converter: int8 but LayerNorm, softmax, GELU": lambda: self.denied(
                [*NORM, "SOFTMAX", "GELU"]
            ),
            "converter: products in int8": lambda: self.denied(NOT_PRODUCTS),
            "quantizer: int8": lambda: self.quantized(["*"]),
            "quantizer: products in int8": lambda: self.quantized(PRODUCTS),
            "quantizer: products, moving averages": lambda: self.quantized(
                PRODUCTS, update=qsv_utils.moving_average_update
            ),
            "quantizer: products but classifiers": lambda: self.quantized(PRODUCTS, CLASSIFIERS),
            "quantizer: and depthwise convolutions": lambda: self.quantized(
                [*PRODUCTS, "DEPTHWISE_CONV_2D"], CLASSIFIERS
            ),
            "quantizer: and products of the attention": lambda: self.quantized(
                [*PRODUCTS, "BATCH_MATMUL"], CLASSIFIERS
            ),
            "quantizer: and softmax, GELU": lambda: self.quantized(
                [*PRODUCTS, "SOFTMAX", "GELU"], CLASSIFIERS
            ),
            "quantizer: products, int16 activations": lambda: self.quantized(
                PRODUCTS, CLASSIFIERS, activation_bits=16
            ),
        }
        return {**exported, **tried}

    def export(self, kind):
        path = self.folder / "exported.tflite"
        calibration = self.calibration if kind == "int8" else None
        export_tflite(self.trained, path, kind, calibration=calibration)
        return path.read_bytes()

    def samples(self):
        return ({"images": image[np.newaxis]} for image in self.calibration)

    def converter(self):
        return tf.lite.TFLiteConverter.from_saved_model(self.saved)

    def calibrated(self, *operations):
        converter = self.converter()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = self.samples
        if operations:
            converter.target_spec.supported_ops = list(operations)
        return converter

    def denied(self, operations):
        return tf.lite.experimental.QuantizationDebugger(
            converter=self.calibrated(),
            debug_dataset=lambda: [next(self.samples())],
            debug_options=tf.lite.experimental.QuantizationDebugOptions(
                denylisted_ops=list(operations)
            ),
        ).get_nondebug_quantized_model()

    def quantized(
        self, operations, dynamic=None, activation_bits=8, update=qsv_utils.min_max_update
    ):
        recipe = recipe_manager.RecipeManager()
        for operation in operations:
            recipe.add_static_config(".*", operation, activation_bits, 8)
        if dynamic:
            recipe.add_dynamic_config(dynamic, "FULLY_CONNECTED", 8)
        ranges = calibrator.Calibrator(self.float32, num_threads=1, qsv_update_func=update)
        ranges.calibrate({"serving_default": list(self.samples())}, recipe)
        quantizer = Quantizer(self.float32, recipe.get_quantization_recipe())
        result = quantizer.quantize(ranges.get_model_qsvs(), enable_progress_report=False)
        return bytes(result.quantized_model)


def main(_):
    trained = load_trained_model(FLAGS.model)
    images, labels = crops(trained.data, "val")
    calibration = crops(trained.data, "train", CALIBRATION_IMAGES)[0]
    expected = np.concatenate([trained.logits([image]) for image in images])
    timed = TrainedModel(pit_keras.create_model(FLAGS.timed), ("",) * 1000, DataConfig())
    timed_calibration = crops(timed.data, "train", TIMED_CALIBRATION_IMAGES)[0]
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        small = Ways(trained, calibration, pathlib.Path(first)).all()
        large = Ways(timed, timed_calibration, pathlib.Path(second)).all()
        rows, files = [], {}
        for way in small:
            print(way, flush=True)
            try:
                quality = quality_of(small[way](), pathlib.Path(first), images, labels, expected)
                files[way] = large[way]()
            except (RuntimeError, ValueError) as error:
                quality = {"failure": str(error).split("\n")[0][:80]}
            rows.append({"way": way, **quality})
    times = {threads: timings(files, threads) for threads in (1, 2)}
    columns = ("way", "agreement", "accuracy", "max_error", "mean_error", "megabytes")
    columns += ("ms_1_thread", "ms_2_threads", "failure")
    for row in rows:
        if row["way"] in files:
            row["megabytes"] = round(len(files[row["way"]]) / 1e6, 1)
            for threads, name in ((1, "ms_1_thread"), (2, "ms_2_threads")):
                row[name] = times[threads][row["way"]]
        print(row)
    write_rows(
        [{name: row.get(name, "") for name in columns} for row in rows], pathlib.Path(FLAGS.output)
    )


def crops(data, split, count=None):
    """Crops of a split as the model sees them, uint8 (N, H, W, 3), and their labels."""
    source = open_source(FLAGS.dataset)
    examples = list(source.scan(split).take(-1 if count is None else count))
    loaded = (source.load(example["image"]) for example in examples)
    images = [resize_and_crop(image, data.image_size, data.eval_crop) for image in loaded]
    images = np.stack([tf.cast(image, tf.uint8).numpy() for image in images])
    return images, np.array([int(example["label"]) for example in examples])


def quality_of(contents, folder, images, labels, expected):
    path = folder / "measured.tflite"
    path.write_bytes(contents)
    logits = run_tflite(path, images, threads=2)
    errors, likeliest = np.abs(logits - expected), logits.argmax(axis=-1)
    return {
        "agreement": round(float(np.mean(likeliest == expected.argmax(axis=-1))), 4),
        "accuracy": round(float(np.mean(likeliest == labels)), 4),
        "max_error": round(float(errors.max()), 4),
        "mean_error": round(float(errors.mean()), 4),
    }


def timings(files, threads):
    """Median milliseconds of a call of each file, called in turn."""
    interpreters = {
        way: Interpreter(model_content=contents, num_threads=threads)
        for way, contents in files.items()
    }
    milliseconds = {way: [] for way in interpreters}
    for interpreter in interpreters.values():
        interpreter.allocate_tensors()
        interpreter.invoke()
    for _ in range(FLAGS.repeats):
        for way, interpreter in interpreters.items():
            start = time.perf_counter()
            interpreter.invoke()
            milliseconds[way].append(1000 * (time.perf_counter() - start))
    return {way: round(statistics.median(values), 1) for way, values in milliseconds.items()}


if __name__ == "__main__":
    app.run(main)
