"""`pit-keras convert`: turn a checkpoint into a .keras file."""

import pathlib

from pit_keras.commands.arguments import image_size
from pit_keras.config.model_names import check_model_name
from pit_keras.errors import visible_lines


def add_arguments(command):
    argument = command.add_argument
    argument(
        "checkpoint", help="a .safetensors, .pth or .keras file, or imagenet for the released one"
    )
    argument("--model", help="its model (default: what the checkpoint looks like)")
    argument("--output", metavar="FILE", help="default: MODEL.keras")
    argument(
        "--image_size",
        type=image_size,
        metavar="PIXELS",
        help="side, or HEIGHT,WIDTH (default: the checkpoint's)",
    )
    argument(
        "--weights_across_distillation",
        action="store_true",
        help="allow a distilled checkpoint for a plain model, and the reverse",
    )
    help_ = "take the raw weights where averaged ones stand beside them"
    argument("--raw", action="store_true", help=help_)
    argument("--overwrite", action="store_true", help="replace an earlier file")


def run(options):
    path = pathlib.Path(options.checkpoint)
    if path.suffix and not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if options.model is not None:
        check_model_name(options.model)
    from pit_keras.weights.loading import convert

    path, report = convert(
        options.checkpoint,
        options.output,
        name=options.model,
        image_size=options.image_size,
        across_distillation=options.weights_across_distillation,
        averaged=not options.raw,
        overwrite=options.overwrite,
    )
    print(visible_lines(report))
    print(f"Written to {path} ({path.stat().st_size / 1e6:.1f} MB)")
