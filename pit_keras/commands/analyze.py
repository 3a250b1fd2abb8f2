"""Measures how a network works on images, and draws it: spatial interaction, figure 5.

    pit-keras analyze interaction --model=vit_s,pit_s,resnet50 --weights=imagenet \\
        --dataset=imagenet2012 --data_dir=DIR --output_dir=runs/interaction

writes interaction.csv and interaction.png; pit_keras/explain/interaction.py says what is measured.
"""

import pathlib
import sys

from absl import flags

from pit_keras.commands.absl_flags import (
    flag_lines,
    image_size_of,
    numbers_of,
    offer_flags,
    parse_flags,
    parser_with_help,
)
from pit_keras.commands.arguments import check_data_set
from pit_keras.errors import check_can_write, exit_with_one_sentence
from pit_keras.runs.run_folder import find_model

FLAGS = flags.FLAGS
REQUIRED = ("model", "dataset", "output_dir")


def define(values):
    into, tokens = {"flag_values": values}, ["spatial", "class", "all"]
    flags.DEFINE_list("model", None, "Models' names, run folders or .keras files.", **into)
    text = "For models by name: imagenet, a weights file, or none."
    flags.DEFINE_string("weights", None, text, **into)
    text = "For models by name: side in pixels, or height,width."
    flags.DEFINE_list("image_size", None, text, **into)
    flags.DEFINE_string("dataset", None, "digits, folder:PATH or a TFDS name.", **into)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data sets.", **into)
    text = "Share held out where the data set has no validation split."
    flags.DEFINE_float("holdout", 0.1, text, **into)
    text = "Where the images are taken from."
    flags.DEFINE_enum("split", "val", ["train", "val"], text, **into)
    text = "Number of images, all if there are fewer."
    flags.DEFINE_integer("images", 1000, text, lower_bound=1, **into)
    text = "Images that pass the model at once."
    flags.DEFINE_integer("batch_size", 16, text, lower_bound=1, **into)
    text = "Attention that counts when exceeded, in 0..1."
    flags.DEFINE_list("thresholds", ["0.01", "0.1"], text, **into)
    flags.DEFINE_enum("queries", "spatial", tokens, "Which tokens ask.", **into)
    flags.DEFINE_enum("keys", "spatial", tokens, "Which tokens are counted.", **into)
    flags.DEFINE_string("output_dir", None, "Folder to write to, made if need be.", **into)
    flags.mark_flags_as_required(REQUIRED, flag_values=values)


def _own_flags():
    values = flags.FlagValues()
    define(values)
    return [values[name] for name in values]


def parse_defined(argv, values=FLAGS):
    define(values)
    return parse_flags(argv, values)


parse = parser_with_help(
    lambda: "\n".join([__doc__.strip(), "", *flag_lines(_own_flags(), REQUIRED)]), parse_defined
)


def add_arguments(command):
    """Adds the flags to an argparse parser, for a shell's completion."""
    command.add_argument("analysis", choices=["interaction"])
    offer_flags(command, _own_flags())


def run(arguments):
    if arguments[1:] != ["interaction"]:
        given = " ".join(arguments[1:]) or "nothing"
        sys.exit(f"error: Give one analysis, interaction; got {given}.")
    with exit_with_one_sentence():
        definition, networks, source = prepare()
        output_dir = pathlib.Path(FLAGS.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        table, picture = output_dir / "interaction.csv", output_dir / "interaction.png"
        for path in (table, picture):
            check_can_write(path)
    # Imported here, since a wrong flag should not wait for it.
    from pit_keras.data.unreadable import UnreadableImageError
    from pit_keras.explain.interaction import interaction_of_source
    from pit_keras.models.attention import has_transformer_blocks
    from pit_keras.plots.paper_figures import draw_interaction
    from pit_keras.runs.run_folder import csv_text, write_atomically

    rows = []
    with exit_with_one_sentence(UnreadableImageError, OSError):
        for network in networks:
            what = " has no attention: the paper's approximation stands in for it"
            if has_transformer_blocks(network.model):
                what = f", weights: {network.weights}"
            print(f"{network.name}{what}", flush=True)
            rows += interaction_of_source(
                network,
                source,
                FLAGS.split,
                images=FLAGS.images,
                batch_size=FLAGS.batch_size,
                definition=definition,
                progress=sys.stdout.isatty(),
            )
        write_atomically(table, csv_text(rows))
        draw_interaction(rows, picture)
    print(f"Written to {output_dir}: {table.name}, {picture.name}")


def prepare():
    """The definition of interaction, the networks and the data, checked before long work."""
    thresholds = numbers_of("thresholds", FLAGS.thresholds)
    size = None if FLAGS.image_size is None else image_size_of(FLAGS.image_size)
    check_data_set(FLAGS.dataset)
    for name in map(pathlib.Path, FLAGS.model):
        if name.suffix == ".keras":
            find_model(name)
    import keras

    from pit_keras.data.labelled_images import open_source
    from pit_keras.explain.interaction import Definition, check_measurable
    from pit_keras.explain.opened_networks import open_networks
    from pit_keras.models.attention import has_transformer_blocks

    definition = Definition(thresholds, FLAGS.queries, FLAGS.keys)
    source = open_source(FLAGS.dataset, data_dir=FLAGS.data_dir, holdout=FLAGS.holdout)
    keras.utils.set_random_seed(0)  # for --weights=none
    networks = open_networks(FLAGS.model, FLAGS.weights, size)
    if not any(has_transformer_blocks(network.model) for network in networks):
        names = ", ".join(network.name for network in networks)
        for option in ("queries", "keys"):
            if FLAGS[option].value != "spatial":
                raise ValueError(
                    f"--{option}={FLAGS[option].value} is for networks with class tokens, and "
                    f"{names} has none."
                )
    for network in networks:
        check_measurable(network, source, FLAGS.split)
    return definition, networks, source
