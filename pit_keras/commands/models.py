"""`pit-keras models`: list the models with their size and cost."""

from rich.console import Console
from rich.table import Table

from pit_keras.commands.arguments import add_command, progress


def add(commands):
    command = add_command(commands, "models", run, "list the models with their size and cost")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'pit_*'")


def run(options):
    """Prints a table of models: parameters, multiply-accumulates, stages' grids at 224 x 224.

    Classifiers are counted with ImageNet's classes, detectors with COCO's.
    """
    from pit_keras.create import create_model
    from pit_keras.imagenet import CLASSES as IMAGENET_CLASSES
    from pit_keras.models import list_models, variant_of
    from pit_keras.models.cost import count_macs, count_parameters
    from pit_keras.models.detr import COCO_CLASSES, Detr

    names = list_models(options.pattern)
    if not names:
        raise ValueError(
            f"No model matches {options.pattern!r}; models are {', '.join(list_models())}."
        )
    table = Table("model", "parameters", "MACs (G)", "grids at 224 x 224", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    for name in progress(names, "Counting"):
        is_detector = isinstance(variant_of(name), Detr)
        model = create_model(name, classes=COCO_CLASSES if is_detector else IMAGENET_CLASSES)
        grids = "  ".join(f"{h}x{w}" for h, w in variant_of(name).grids((224, 224)))
        macs = count_macs(model) / 1e9
        table.add_row(name, f"{count_parameters(model):,}", f"{macs:.2f}", grids)
    Console().print(table)
