"""`pit-keras predict`: name what is in pictures, with a detector also where."""

import pathlib
import sys

from pit_keras.commands.arguments import (
    add_model_arguments,
    image_files,
    is_detector,
    is_tflite,
    load_model,
    positive,
    refuse,
    share,
)
from pit_keras.errors import check_outputs, visible
from pit_keras.runs.found_objects import THRESHOLD

TOP = 5


def add_arguments(command):
    add_model_arguments(command)
    argument = command.add_argument
    argument("images", nargs="+", metavar="IMAGE", help="JPEG or PNG files, or folders of them")
    argument("--top", type=positive, help=f"classes to show, of a classifier (default {TOP})")
    help_ = f"least score of an object, of a detector (default {THRESHOLD})"
    argument("--threshold", type=share, help=help_)
    argument("--output", metavar="PICTURE", help="also draw the pictures with names, and boxes")
    help_ = "also draw an explanation for each stage of a PiT or ViT (attention rollout)"
    argument("--explain", metavar="PICTURE", help=help_)


def run(options):
    """Prints the likeliest classes of image files, or their objects; draws them if asked."""
    paths = image_files(options.images)
    _check_pictures(options, paths)
    predictor = load_model(options, takes_tflite=True)
    if is_detector(predictor):
        refuse(options, ("top", "explain"), "for a detector")
        _detect(options, predictor, paths)
    else:
        refuse(options, ("threshold",), "for a classifier")
        _classify(options, predictor, paths)


def _classify(options, classifier, paths):
    if options.explain is not None:
        from pit_keras.explain.explanation import draw_explanations
        from pit_keras.models.attention import has_transformer_blocks

        if not has_transformer_blocks(classifier.model):
            raise ValueError(
                f"{options.model} has no attention to explain its decisions with; use a PiT or ViT."
            )
    from pit_keras.runs.trained_model import predict as predict_files
    from pit_keras.waits import counted, waiting

    with waiting("Predicting"):
        predictions = predict_files(classifier, counted(paths, "Reading"), options.top or TOP)
    for path, best in zip(paths, predictions, strict=True):
        print(visible(f"{path}: " + ", ".join(f"{name} {share:.1%}" for name, share in best)))
    if options.output is not None:
        from pit_keras.plots.galleries import draw_predictions

        turns = classifier.apply_orientation
        with waiting(f"Drawing {options.output}"):
            draw_predictions(paths, predictions, options.output, turns)
        print(f"Drawn in {options.output}", file=sys.stderr)
    if options.explain is not None:
        images = counted(paths, "Explaining")
        with waiting(f"Drawing {options.explain}"):
            draw_explanations(classifier, images, predictions, options.explain)
        print(f"Explained in {options.explain}", file=sys.stderr)


def _detect(options, detector, paths):
    if options.output is not None:
        from pit_keras.plots.galleries import MOST_DETECTED, draw_detections
        from pit_keras.plots.pictures import check_picture

        check_picture(options.output, len(paths), MOST_DETECTED)
    from pit_keras.runs.trained_detector import detect
    from pit_keras.waits import counted, waiting

    threshold = THRESHOLD if options.threshold is None else options.threshold
    with waiting("Detecting"):
        found = detect(detector, counted(paths, "Reading"), threshold)
    for path, objects in zip(paths, found, strict=True):
        print(visible(f"{path}: {len(objects)} object{'' if len(objects) == 1 else 's'}"))
        for each in objects:
            box = "left {:.0f}, top {:.0f}, right {:.0f}, bottom {:.0f}".format(*each.box)
            print(visible(f"  {each.name} {each.score:.1%}: {box}"))
    if options.output is not None:
        with waiting(f"Drawing {options.output}"):
            draw_detections(paths, found, options.output, detector.apply_orientation)
        print(f"Drawn in {options.output}", file=sys.stderr)


def _check_pictures(options, paths):
    if options.explain is not None and is_tflite(options.model):
        raise ValueError(
            f"--explain needs a Keras model; give the run folder or .keras file of {options.model}."
        )
    given = {"--output": options.output, "--explain": options.explain}
    check_outputs(given)
    inputs = {path.resolve() for path in paths}
    for option, picture in given.items():
        if picture is None:
            continue
        from pit_keras.plots.pictures import MOST_EXPLAINED, MOST_IMAGES, check_picture

        if pathlib.Path(picture).resolve() in inputs:
            raise ValueError(f"{option}={picture} is one of the images to predict.")
        most = MOST_IMAGES if option == "--output" else MOST_EXPLAINED
        check_picture(picture, len(paths), most)
