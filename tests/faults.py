"""Faults that somebody might make, and whether the tests notice them.

    python tests/faults.py [NAME ...] [--jobs=1] [--csv=FILE]

Each fault is put into a copy of the project, alone, and the tests that are expected to notice it
are run there until the first fails. A fault that none notices has escaped; the exit status is 1
then. Whoever moves, merges or removes tests runs this before and after.
"""

import argparse
import concurrent.futures
import csv
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What the tests need of the project, beside its files.
FOLDERS = ("pit_keras", "train", "tests", "notebooks", "benchmarks", "results")
COLUMNS = ("fault", "description", "caught_by", "seconds")


class Fault(NamedTuple):
    """One fault.

    Attributes:
        name: What it is called.
        description: What is wrong then.
        text: Of the package, where it stands exactly once.
        replacement: What stands there instead.
        tests: Names of the files, anywhere below tests/, that hold a test which notices it, the
            likeliest first.
    """

    name: str
    description: str
    text: str
    replacement: str
    tests: tuple[str, ...]


FAULTS = (
    # Models and weights.
    Fault(
        "pooling_padded_on_one_side",
        "Token pooling pads its map below and to the right alone, as Keras' own padding does.",
        "sides = (self.dilation, self.dilation)",
        "sides = (0, 2 * self.dilation)",
        ("test_parity.py",),
    ),
    Fault(
        "taps_transposed_for_xla",
        "Where XLA compiles, token pooling takes rows of its kernel for columns.",
        "* kernel[i, j]",
        "* kernel[j, i]",
        ("test_dilated_pooling.py",),
    ),
    Fault(
        "keys_and_values_exchanged",
        "Of DETR's published weights, keys and values are taken for each other.",
        '_PROJECTIONS = ("query", "key", "value")',
        '_PROJECTIONS = ("query", "value", "key")',
        ("test_detr_parity.py",),
    ),
    # Data.
    Fault(
        "label_weighed_before_clipping",
        "CutMix weighs labels by the box as it was drawn, before it was clipped at the border.",
        "pasted = tf.cast((bottom - top) * (right - left), tf.float32) / (height * width)",
        "pasted = tf.cast(1 - _beta(seed_for(seed, Purpose.CUTMIX_SHARE), alpha), tf.float32)",
        ("test_mixing.py",),
    ),
    Fault(
        "order_without_the_seed",
        "The order of the training images does not depend on the seed.",
        "tf.stack([tf.cast(seed, tf.int64), epoch]), max_index",
        "tf.stack([tf.constant(0, tf.int64), epoch]), max_index",
        ("test_labelled_images.py",),
    ),
    Fault(
        "boxes_divided_by_the_other_side",
        "Training boxes become shares of the wrong sides: x of the height, y of the width.",
        "sides = tf.cast(tf.stack([width, height, width, height]), tf.float32)",
        "sides = tf.cast(tf.stack([height, width, height, width]), tf.float32)",
        ("test_detection_augmentation.py",),
    ),
    Fault(
        "filler_counted_as_images",
        "What fills up the last batch of an evaluation counts as images of the first class.",
        '"label": tf.constant(0, tf.int64),\n        "weight": tf.constant(0.0),',
        '"label": tf.constant(0, tf.int64),\n        "weight": tf.constant(1.0),',
        ("test_classification.py",),
    ),
    # Training: optimizer, schedule, losses.
    Fault(
        "momentum_decides_the_projection",
        "AdamP asks the momentum, not the gradient, whether a weight is scale-invariant.",
        "gradient * weight,\n                ops.square(gradient),",
        "direction * weight,\n                ops.square(direction),",
        ("test_optimizer.py",),
    ),
    Fault(
        "cosine_begins_after_the_warm_up",
        "The learning rate's cosine runs from the end of the warm-up, not over all steps.",
        "progress = ops.minimum(step / steps, 1.0)",
        "progress = ops.minimum((step - self.warmup_steps) / (steps - self.warmup_steps), 1.0)",
        ("test_schedule.py",),
    ),
    Fault(
        "divergence_of_the_wrong_sign",
        "Soft distillation drives the student away from its teacher.",
        "ops.exp(teacher) * (teacher - student)",
        "ops.exp(teacher) * (student - teacher)",
        ("test_losses.py",),
    ),
    Fault(
        "average_of_trained_weights_only",
        "The moving average leaves out the statistics of BatchNormalization.",
        "self._weights, self._decay = list(model.weights), decay",
        "self._weights, self._decay = list(model.trainable_weights), decay",
        ("test_averaging.py",),
    ),
    Fault(
        "clipping_sees_the_loss_scale",
        "Gradients are clipped by their norm with float16's loss scale in it.",
        "norm /= tf.cast(optimizer.scale_loss(tf.constant(1.0)), norm.dtype)",
        "norm /= tf.ones_like(norm)",
        ("test_step.py",),
    ),
    # Training on several devices and by several workers.
    Fault(
        "gradients_averaged_over_replicas",
        "Gradients of shares of the loss are averaged over the replicas instead of summed.",
        "return sums[: len(gradients)], sums[len(gradients) :]",
        "means = [value / replica.num_replicas_in_sync for value in sums[: len(gradients)]]\n"
        "    return means, sums[len(gradients) :]",
        ("test_replicas.py",),
    ),
    Fault(
        "boxes_of_one_replica",
        "A detector's losses are divided by what one replica has of boxes, times the replicas.",
        "totals = replica.all_reduce(_SUM, totals)",
        "totals = {k: v * replica.num_replicas_in_sync for k, v in totals.items()}",
        ("test_detection_steps.py",),
    ),
    Fault(
        "lost_worker_is_a_traceback",
        "While training, the end of another worker is TensorFlow's error and not a sentence.",
        "with self.workers.must_live(), self.task.graph_options():",
        "with self.task.graph_options():",
        ("test_several_workers.py",),
    ),
    # Training that is carried on.
    Fault(
        "checkpoint_without_the_optimizer",
        "Checkpoints lack the optimizer's state, so a run that is carried on begins it anew.",
        "self._keeper.save(self._number, self.state.arrays())",
        'self._keeper.save(self._number, self.state.arrays(("model", "average")))',
        ("test_carrying_on.py",),
    ),
    Fault(
        "first_steps_of_an_epoch_forgotten",
        "The history of an epoch that was cut short tells of its last steps alone.",
        "self.epoch = Meter(progress.sums, progress.step)",
        "self.epoch = Meter()",
        ("test_survival.py",),
    ),
    Fault(
        "detector_resumes_at_the_first_image",
        "A detector's run that is carried on sees its training images from the first on again.",
        "self.train_batches = partial(detection_train_batches, source, data, detection)",
        "self.train_batches = lambda start=0, **options: detection_train_batches(\n"
        "            source, data, detection, **options\n"
        "        )",
        ("test_detection_runs.py",),
    ),
    Fault(
        "run_folder_unlocked",
        "The lock of a run folder is a file that is there, and keeps nobody out.",
        "lock.acquire(timeout=1)",
        "self.lock.touch()",
        ("test_run_folder.py",),
    ),
    # Evaluation and analysis.
    Fault(
        "fgsm_step_of_normalised_values",
        "The attack's epsilon is taken for a change of normalised values, not of pixels.",
        "in (float(epsilon) / std, ",
        "in (np.full(3, float(epsilon)), ",
        ("test_fgsm.py",),
    ),
    Fault(
        "detected_boxes_of_exchanged_sides",
        "A detector's boxes are scaled to pixels by height and width in the wrong order.",
        'ops.flip(ops.cast(sizes, "float32"), axis=1)',
        'ops.cast(sizes, "float32")',
        ("test_detection.py",),
    ),
    Fault(
        "interaction_of_the_mean_head",
        "A location counts as attended to by the mean of the heads, not by any of them.",
        "ops.max(attention, axis=1)",
        "ops.mean(attention, axis=1)",
        ("test_interaction.py",),
    ),
    Fault(
        "rollout_leaks_at_the_border",
        "Pooled tokens at the border give a part of their share to what lies outside the map.",
        "return shares / shares.sum(axis=1, keepdims=True)",
        "return shares / taps.sum()",
        ("test_rollout.py",),
    ),
    # Export, serving and commands.
    Fault(
        "onnx_without_normalisation",
        "An ONNX file scales its pixels to 0..1 and leaves out mean and standard deviation.",
        "@tf.function(autograph=False)\n    def classify(images):\n"
        "        images = normalise(images, data.mean, data.std)",
        "@tf.function(autograph=False)\n    def classify(images):\n"
        "        images = tf.cast(images, tf.float32) / 255",
        ("test_onnx_file.py",),
    ),
    Fault(
        "int8_logits_clipped",
        "The logits of an int8 TFLite file are clipped to the range of the calibration images'.",
        'recipe.add_dynamic_config(_CLASSIFIERS, "FULLY_CONNECTED", _BITS)',
        'recipe.add_static_config(_CLASSIFIERS, "FULLY_CONNECTED", _BITS, _BITS)',
        ("test_tflite_quantization.py", "test_tflite.py"),
    ),
    Fault(
        "disagreeing_export_is_kept",
        "An exported file that does not agree with the Keras model is written all the same.",
        "entries[name] = dataclasses.replace(entry, written=entry.accepted or force)",
        "entries[name] = dataclasses.replace(entry, written=True)",
        ("test_exporting.py",),
    ),
    Fault(
        "detected_boxes_out_of_order",
        "A detector's SavedModel sorts its scores and labels, and leaves the boxes as they were.",
        '"boxes": tf.gather(boxes, order, batch_dims=1)',
        '"boxes": boxes',
        ("test_exporting_detectors.py",),
    ),
    Fault(
        "files_served_without_normalisation",
        "A SavedModel normalises pixels, but not those of the image files that it decodes.",
        "return classify(normalise(crops, data.mean, data.std))",
        "return classify(crops / 255)",
        ("test_saved_model.py",),
    ),
    Fault(
        "places_of_the_server_lost",
        "Of the places that a request of several images took, the server gets one back.",
        "self.free += held",
        "self.free += 1",
        ("test_limits.py",),
    ),
    Fault(
        "split_of_a_detector_ignored",
        "pit-keras evaluate measures a detector on the validation images whatever it is told.",
        "options.split,\n        batch_size=options.batch_size or BATCH_SIZE_OF_DETECTOR",
        '"val",\n        batch_size=options.batch_size or BATCH_SIZE_OF_DETECTOR',
        ("test_detection_commands.py",),
    ),
)


def place_of(fault, root):
    """The file of the package in which a fault's text stands.

    Raises:
        ValueError: If it stands nowhere, or more than once.
    """
    files = sorted((root / "pit_keras").rglob("*.py"))
    counts = {file: file.read_text(encoding="utf-8").count(fault.text) for file in files}
    found = [file for file, count in counts.items() if count]
    if sum(counts.values()) != 1:
        where = ", ".join(str(file.relative_to(root)) for file in found)
        raise ValueError(
            f"{fault.name}: its text must stand once in the package, and does so "
            f"{sum(counts.values())} times{f' ({where})' if where else ''}."
        )
    return found[0]


def files_of_tests(fault, root):
    """Paths of a fault's tests that are there.

    Raises:
        ValueError: If none is.
    """
    found = [path for name in fault.tests for path in sorted((root / "tests").rglob(name))]
    if not found:
        raise ValueError(f"{fault.name}: there is no {' and no '.join(fault.tests)}.")
    return [str(path.relative_to(root)) for path in found]


def result_of(fault, root):
    """The first failing test, None if the fault escapes; and the seconds that the tests took.

    Raises:
        RuntimeError: If the tests did not run.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy, log = pathlib.Path(folder, "project"), pathlib.Path(folder, "log.txt")
        copy.mkdir()
        for name in FOLDERS:
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in filter(pathlib.Path.is_file, root.iterdir()):
            shutil.copy(path, copy)
        file = place_of(fault, copy)
        content = file.read_text(encoding="utf-8")
        file.write_text(content.replace(fault.text, fault.replacement), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow"]
        command += [
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder}/tests",
            *files_of_tests(fault, copy),
        ]
        # Before an installed package, which may be the project itself.
        environment = {**os.environ, "PYTHONPATH": str(copy), "TF_CPP_MIN_LOG_LEVEL": "3"}
        start = time.monotonic()
        # Not a pipe, which processes that tests leave behind would keep open.
        with log.open("w") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            status = subprocess.run(command, cwd=copy, env=environment, **streams).returncode
        seconds = time.monotonic() - start
        printed = log.read_text(encoding="utf-8", errors="replace")
    failures = re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", printed, re.MULTILINE)
    if status > 1 and not failures:
        raise RuntimeError(f"{fault.name}: pytest ended with the status {status}.\n{printed}")
    return (failures or ["a test that does not end"])[0] if status else None, seconds


def main():
    parser = argparse.ArgumentParser(description="Whether the tests notice faults.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of faults (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time (default 1)")
    parser.add_argument("--csv", type=pathlib.Path, help="also write the results to this file")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="folder of the project")
    options = parser.parse_args()
    unknown = set(options.names) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    chosen = [fault for fault in FAULTS if not options.names or fault.name in options.names]
    root, rows = options.root.resolve(), []
    for fault in chosen:  # before long work
        try:
            place_of(fault, root)
            files_of_tests(fault, root)
        except ValueError as error:
            parser.error(str(error))
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(functools.partial(result_of, root=root), chosen)
        for fault, (test, seconds) in zip(chosen, results, strict=True):
            word = "ESCAPED" if test is None else "caught"
            print(f"{fault.name:36} {word:8} {seconds:5.0f} s  {test or ''}", flush=True)
            rows.append((fault.name, fault.description, test or "", round(seconds)))
            if options.csv:
                with options.csv.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return int(any(not test for _, _, test, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
