"""`pit-keras models`: list the models with their size and cost."""

from pit_keras.commands.arguments import models_matching


def add_arguments(command):
    command.add_argument("pattern", nargs="?", default="*", help="such as 'pit_*'")


def run(options):
    """Prints each model's size, cost and grids, with the classes of ImageNet or COCO."""
    names = models_matching(options.pattern)
    from rich.console import Console
    from rich.table import Table

    from pit_keras.create import create_model
    from pit_keras.imagenet import CLASSES as IMAGENET_CLASSES
    from pit_keras.models import variant_of
    from pit_keras.models.cost import count_macs, count_parameters, shapes_only
    from pit_keras.models.detr import COCO_CLASSES, Detr
    from pit_keras.waits import counted

    table = Table("model", "parameters", "MACs (G)", "grids at 224 x 224", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    for name in counted(names, "Counting"):
        is_detector = isinstance(variant_of(name), Detr)
        with shapes_only():
            model = create_model(name, classes=COCO_CLASSES if is_detector else IMAGENET_CLASSES)
        grids = "  ".join(f"{h}x{w}" for h, w in variant_of(name).grids((224, 224)))
        macs = count_macs(model) / 1e9
        table.add_row(name, f"{count_parameters(model):,}", f"{macs:.2f}", grids)
    Console().print(table)
