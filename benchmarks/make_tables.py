"""Joins what is known of each model, and writes the tables of README and docs from it.

    python benchmarks/make_tables.py

reads, in `results/`,

    paper.csv       the paper's figures (throughput on a V100 at batch 128), and their source
    released.csv    top-1 of the released weights as others measured them, and who
    measured.csv    what `pit-keras benchmark --output=results/measured.csv` counted and measured
    keras_cv_cutmix.csv  what `benchmarks/keras_cv_cutmix.py` measured
    sweep_*.csv     what `train/sweep.py` wrote, see docs/pooling.md for the commands

and writes models.csv, all of it side by side, and the tables of README and docs. A cell is empty
where nothing is known: nothing here was trained on ImageNet.
"""

import argparse
import csv
import io
import pathlib
import re

from pit_keras.config.model_names import list_models
from pit_keras.config.recipes import recipe
from pit_keras.errors import exit_with_one_sentence
from pit_keras.measure import cost_table as benchmark
from pit_keras.measure.cost_table import markdown_table
from pit_keras.measure.measuring import MEASURES, REFERENCE
from pit_keras.models import variant_of
from pit_keras.plots.paper_figures import mean_and_deviation, networks_of
from pit_keras.weights.released import RELEASES

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "results"
DISTILLED = "_distilled"
FAMILIES = ("pit", "vit", "regnety", "resnet", "mobilenet", "efficientnet")
SIZES = ("ti", "xs", "s", "b")
# The tables are of classifiers; `results/detectors.csv` is of the detectors.
CLASSIFIERS = [name for name in list_models() if not name.startswith("detr_")]
# The training settings of table 2, and what each adds to the one before.
ADDED = {
    "vanilla": "random resized crop and flip",
    "cutmix": "CutMix",
    "deit": "RandAugment, erasing, MixUp or CutMix, label smoothing, drop path, averaged weights; "
    "for PiT-B three views of each image",
    "distill": "a teacher for the second head of `--model=pit_s_distilled`",
}
WITHOUT_WEIGHTS = "resnet50_no_pooling"  # Keras has those of all others that RELEASES lacks
MEASURED = [column for columns in MEASURES.values() for column in columns]
COLUMNS = (
    "model",
    "paper_flops_g", "paper_parameters_m", "paper_images_per_second", "paper_top1", "paper_source",
    "released_top1", "released_image_size", "released_crop", "released_source",
    "here_top1", "here_image_size", *(f"here_{column}" for column in MEASURED), "here_conditions",
)  # fmt: skip

# A pattern for the cells of each column.
TEXT, NUMBER, COUNT = r".+", r"\d+(\.\d+)?", r"\d+"
FIGURES = dict.fromkeys(("flops_g", "parameters_m", "images_per_second", *ADDED), NUMBER)
SHARES = dict.fromkeys(("loss", "top1", "val_loss", "val_top1"), NUMBER)
TEXTS = ("family", "model")
SWEEP_COLUMNS = ("family", "model", "width", "macs_target", "macs", "parameters", "seed", "epochs")
CELLS = {
    "paper.csv": {"model": TEXT, **FIGURES, "images_per_second": COUNT, "source": TEXT},
    "released.csv": {
        "model": TEXT, "top1": NUMBER, "image_size": r"\d*", "crop": ".*", "source": TEXT,
    },
    "measured.csv": {
        **dict.fromkeys(benchmark.SETTINGS, TEXT),
        **dict.fromkeys(MEASURED, rf"({NUMBER})?"),
        "image_size": r"\d+x\d+", "parameters": COUNT, "macs": COUNT, "problem": ".*",
    },
    "sweep_resnet.csv": {
        **dict.fromkeys(SWEEP_COLUMNS, COUNT), **SHARES,
        "family": TEXT, "model": TEXT, "macs_target": r"[\d.]+(e\+\d+)?",
    },
    "keras_cv_cutmix.csv": {
        "cutmix": TEXT, "images": COUNT,
        **dict.fromkeys(("mean_error", "largest_error", "above_0.02"), NUMBER),
    },
}  # fmt: skip
CELLS["sweep_pit_vit.csv"] = CELLS["sweep_resnet.csv"]
# Models that a table must have.
NEEDED = {
    "paper.csv": [f"pit_{size}" for size in SIZES],
    "released.csv": [],
    "measured.csv": CLASSIFIERS,
}


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}.") from error


def rows_of(name):
    """The rows of a table of `results/`; a ValueError names the row that is not as in `CELLS`."""
    path, cells = RESULTS / name, CELLS[name]
    reader = csv.DictReader(io.StringIO(text_of(path)), strict=True)
    try:
        columns, found = reader.fieldnames or [], [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path} is no table after line {reader.line_num}: {error}.") from error
    if columns != list(cells):
        raise ValueError(f"{path} needs the columns {','.join(cells)}; it has {','.join(columns)}.")
    for line, row in found:
        where = f"{path}, line {line} ({row.get('model', name)})"
        if None in row or None in row.values():
            raise ValueError(f"{where} needs {len(cells)} cells, one for each column.")
        for column, pattern in cells.items():
            if not re.fullmatch(pattern, row[column], re.ASCII):
                raise ValueError(f"{where} cannot have {row[column]!r} as its {column}.")
    return [row for _, row in found]


def read(name):
    """A table with at most one row for each model and all of `NEEDED`, {model: row}."""
    table = {}
    for row in rows_of(name):
        model = row["model"]
        if model not in CLASSIFIERS:
            raise ValueError(f"{RESULTS / name} has a row of {model!r}, which is no model.")
        if table.setdefault(model, row) is not row:
            raise ValueError(f"{RESULTS / name} has two rows of {model}; leave one.")
    for model in NEEDED[name]:
        if model not in table:
            raise ValueError(f"{RESULTS / name} lacks a row of {model}.")
    return table


def place(name):
    """For a sort by family in the paper's order, the small before the large."""
    family = next(i for i, prefix in enumerate(FAMILIES) if name.startswith(prefix))
    size = name.removesuffix(DISTILLED).split("_")[-1]
    return family, SIZES.index(size) if size in SIZES else -1, name


def joined():
    """A row for each model, {column of `COLUMNS`: text}."""
    paper, released, measured = (read(f"{name}.csv") for name in ("paper", "released", "measured"))
    return [
        {
            **dict.fromkeys(COLUMNS, ""),
            "model": name,
            **paper_columns(name, paper),
            **prefixed("released_", released.get(name, {}), "top1", "image_size", "crop", "source"),
            **(here_columns(measured[name]) if name in measured else {}),
        }
        for name in sorted(CLASSIFIERS, key=place)
    ]


def paper_columns(name, paper):
    """A distilled model's top-1 is that of `distill`, a plain one's of `deit`."""
    row = paper.get(name.removesuffix(DISTILLED))
    if row is None:
        return {}
    if name.endswith(DISTILLED):  # the rest was given for the plain models
        return {"paper_top1": row["distill"], "paper_source": row["source"]}
    columns = ("flops_g", "parameters_m", "images_per_second", "source")
    return {**prefixed("paper_", row, *columns), "paper_top1": row["deit"]}


def here_columns(row):
    conditions = "{precision}, batch {batch_size}, medians of {repeats}, {backend}, {device}, "
    conditions += "{threads} threads, {versions}"
    figures = prefixed("here_", row, "image_size", *MEASURED)
    return {**figures, "here_conditions": conditions.format(**row)}


def prefixed(prefix, row, *columns):
    return {f"{prefix}{column}": row.get(column, "") for column in columns}


def models_table(rows):
    """The PiTs and what they are compared with: cost and accuracy."""
    shown = [row for row in rows if not row["model"].startswith(FAMILIES[4:])]
    shown = [row for row in shown if row["model"] not in ("resnet101", "resnet152")]
    cells = [
        [
            f"`{row['model']}`",
            f"{int(row['here_parameters']):,}",
            f"{int(row['here_macs']) / 1e9:.2f}",
            " ".join(str(height) for height, _ in variant_of(row["model"]).grids((224, 224))),
            row["paper_top1"],
            row["released_top1"] + (" (288 px)" if row["released_image_size"] == "288" else ""),
        ]
        for row in shown
    ]
    header = ["model", "parameters", "MACs (G)", "grids at 224", "top-1, paper", "top-1, timm"]
    return markdown_table(header, cells, text_columns=(0, 3))


def recipes_table(_):
    """Table 2's rows for the PiTs."""
    paper, names = read("paper.csv"), [f"pit_{size}" for size in SIZES]
    cells = [
        [
            f"`{setting}`",
            str(recipe(setting, "pit_s").training.epochs),
            *(paper[name][setting] for name in names),
            added,
        ]
        for setting, added in ADDED.items()
    ]
    header = ["recipe", "epochs", "PiT-Ti", "PiT-XS", "PiT-S", "PiT-B", "what it adds"]
    return markdown_table(header, cells, text_columns=(0, 6))


def speed_table(rows):
    """Cost and speed of the models that were timed; the distilled ones hardly differ."""
    columns = [f"here_{name}_ratio" for name in ("throughput", "latency", "training")]
    columns += ["here_inference_mib", "here_training_mib"]
    reference = next(row for row in rows if row["model"] == REFERENCE)
    cells = []
    for row in (row for row in rows if not row["model"].endswith(DISTILLED)):
        ratios = [row[column] for column in columns[:3]]
        paper = row["paper_images_per_second"]
        if not paper and not any(ratios):
            continue
        if paper:
            paper = f"{int(paper) / int(reference['paper_images_per_second']):.2f}"
        cells.append(
            [
                f"`{row['model']}`",
                row["here_image_size"].split("x")[0],
                f"{int(row['here_parameters']) / 1e6:.1f}",
                f"{int(row['here_macs']) / 1e9:.2f}",
                paper,
                *(ratio and f"{float(ratio):.2f}" for ratio in ratios),
                *(row[column] for column in columns[3:]),
            ]
        )
    header = [
        "model", "pixels", "parameters (M)", "MACs (G)", "paper, V100", "batch 16", "batch 1",
        "training step", "MiB, inference", "MiB, training",
    ]  # fmt: skip
    return markdown_table(header, cells)


def sweeps_table(_):
    """Both sweeps: a row for each network, means and deviations over its seeds."""
    cells = []
    for name in ("sweep_resnet.csv", "sweep_pit_vit.csv"):
        rows = [
            {name: text if name in TEXTS else float(text) for name, text in row.items()}
            for row in rows_of(name)
        ]
        for family in dict.fromkeys(row["family"] for row in rows):
            of_family = [row for row in rows if row["family"] == family]
            cells += [[family, *sweep_cells(seeds)] for seeds in networks_of(of_family)]
    header = [
        "family", "width", "MACs (M)", "parameters (k)", "training loss", "training top-1",
        "validation top-1",
    ]  # fmt: skip
    return markdown_table(header, cells)


def cutmix_table(_):
    """How far the labels of CutMix are from the pixels, by keras-cv and by the package."""
    header = ["CutMix of", "images", "mean error", "largest error", "share above 0.02"]
    return markdown_table(header, [list(row.values()) for row in rows_of("keras_cv_cutmix.csv")])


def sweep_cells(seeds):
    """A network's cells but the first, from its rows, one for each seed."""
    first = seeds[0]
    size = f"{first['width']:.0f}", f"{first['macs'] / 1e6:.2f}", f"{first['parameters'] / 1e3:.0f}"
    loss = "{:.3f} ± {:.3f}".format(*mean_and_deviation(seeds, "loss"))
    shares = [mean_and_deviation(seeds, name) for name in ("top1", "val_top1")]
    return [*size, loss, *(f"{100 * mean:.1f} ± {100 * spread:.1f}" for mean, spread in shares)]


def card(row):
    """A model's section: size, cost, accuracy with its source, and how to create it."""
    name = row["model"]
    size = row["here_image_size"].replace("x", " x ")
    paper, released = row["paper_top1"], row["released_top1"]
    crop = row["released_crop"] and f"crop {row['released_crop']}"
    pixels = row["released_image_size"] and f"{row['released_image_size']} px"
    source = ", ".join(part for part in (pixels, crop, row["released_source"]) if part)
    grids = variant_of(name).grids(tuple(map(int, row["here_image_size"].split("x"))))
    call = f'"{name}", weights="imagenet"' if weights_of(name) else f'"{name}"'
    figures = [
        ("parameters", f"{int(row['here_parameters']):,}"),
        (f"MACs at {size}", f"{int(row['here_macs']) / 1e9:.2f} G"),
        ("sides of the maps", " ".join(str(height) for height, _ in grids)),
        ("top-1, paper", paper and f"{paper} ({row['paper_source']})"),
        ("top-1, released weights", released and f"{released} ({source})"),
        ("released weights", weights_of(name)),
        ("create", f"`pit_keras.create_model({call})`"),
    ]
    table = markdown_table([f"`{name}`", ""], [list(pair) for pair in figures if pair[1]], (0, 1))
    return f"### {name}\n\n{table}"


def weights_of(name):
    """Where `weights="imagenet"` comes from; "" where there are none."""
    if name in RELEASES:
        return f"`{RELEASES[name].repository}` on the Hugging Face Hub"
    return "" if name == WITHOUT_WEIGHTS else "`keras.applications`"


# {name of a table: (page that holds it, function from the joined rows to its text)}
TABLES = {
    "models": ("README.md", models_table),
    "cards": ("docs/models.md", lambda rows: "\n".join(map(card, rows))),
    "recipes": ("docs/recipes/index.md", recipes_table),
    "sweeps": ("docs/pooling.md", sweeps_table),
    "speed": ("docs/performance.md", speed_table),
    "cutmix": ("docs/design.md", cutmix_table),
}
PAGES = list(dict.fromkeys(page for page, _ in TABLES.values()))


def with_tables(page, text, rows):
    """A page's text, with its tables between `<!-- table: NAME -->` and `<!-- end -->` renewed."""
    for name, (where, table) in TABLES.items():
        if where != page:
            continue
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if (times := len(marked.findall(text))) != 1:
            wanted = f"<!-- table: {name} --> ... <!-- end --> once"
            raise ValueError(f"{page} needs {wanted}, and has it {times} times.")
        text = marked.sub(lambda found, table=table: found[1] + table(rows) + found[2], text)
    return text


def models_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    with exit_with_one_sentence():
        rows = joined()
        texts = {page: with_tables(page, text_of(ROOT / page), rows) for page in PAGES}
        (RESULTS / "models.csv").write_text(models_csv(rows), encoding="utf-8")
        for page, text in texts.items():
            (ROOT / page).write_text(text, encoding="utf-8")
    print(f"Written to {RESULTS / 'models.csv'}, {', '.join(PAGES)}")


if __name__ == "__main__":
    main()
