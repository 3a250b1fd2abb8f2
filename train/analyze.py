"""Measures how a network works on images, and draws it: spatial interaction, figure 5.

    python train/analyze.py interaction --model=vit_s,pit_s,resnet50 --weights=imagenet \\
        --dataset=imagenet2012 --data_dir=DIR --output_dir=runs/interaction

writes interaction.csv and interaction.png; pit_keras/explain/interaction.py says what is measured.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags, logging

from pit_keras.commands.training_flags import image_size_of, numbers_of, parse_or_exit
from pit_keras.errors import check_can_write, exit_with_one_sentence

FLAGS = flags.FLAGS
flags.DEFINE_list("model", None, "Models' names, run folders or .keras files.", required=True)
flags.DEFINE_string("weights", None, "For models by name: imagenet, a weights file, or none.")
flags.DEFINE_list("image_size", None, "For models by name: side in pixels, or height,width.")
flags.DEFINE_string("dataset", None, "digits, folder:PATH or a TFDS name.", required=True)
flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data sets.")
flags.DEFINE_float("holdout", 0.1, "Share held out where the data set has no validation split.")
flags.DEFINE_enum("split", "val", ["train", "val"], "Where the images are taken from.")
flags.DEFINE_integer("images", 1000, "Number of images, all if there are fewer.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Images that pass the model at once.", lower_bound=1)
flags.DEFINE_list("thresholds", ["0.01", "0.1"], "Attention that counts when exceeded, in 0..1.")
flags.DEFINE_enum("queries", "spatial", ["spatial", "class", "all"], "Which tokens ask.")
flags.DEFINE_enum("keys", "spatial", ["spatial", "class", "all"], "Which tokens are counted.")
flags.DEFINE_string("output_dir", None, "Folder to write to, made if need be.", required=True)


def main(arguments):
    logging.set_verbosity(logging.WARNING)
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
    import keras

    from pit_keras.data.labelled_images import open_source
    from pit_keras.explain.interaction import Definition, check_measurable
    from pit_keras.explain.opened_networks import open_networks
    from pit_keras.models.attention import has_transformer_blocks

    thresholds = numbers_of("thresholds", FLAGS.thresholds)
    definition = Definition(thresholds, FLAGS.queries, FLAGS.keys)
    source = open_source(FLAGS.dataset, data_dir=FLAGS.data_dir, holdout=FLAGS.holdout)
    size = None if FLAGS.image_size is None else image_size_of(FLAGS.image_size)
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


if __name__ == "__main__":
    app.run(main, flags_parser=parse_or_exit)
