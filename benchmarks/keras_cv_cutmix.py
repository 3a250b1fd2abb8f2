"""Label error of CutMix: the weight of an image's own label less the share of its own pixels.

    pip install -e .[train,gallery]
    python benchmarks/keras_cv_cutmix.py --output=results/keras_cv_cutmix.csv

Each image has a colour of its own, and every image a box of its own, by keras-cv and by the
package. `mean_error` and `largest_error` are absolute; `above_0.02` is the share of the images
whose error is larger than 0.02.
"""

import keras_cv
import numpy as np
import tensorflow as tf
from command import parse, write_rows

from pit_keras.data.mixing import mix


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"images": 8},
        images=320,
        output="results/keras_cv_cutmix.csv",
    )
    tf.random.set_seed(0)
    numbers = np.arange(options.images, dtype="float32")
    images = tf.tile(numbers[:, None, None, None], (1, 224, 224, 3))
    labels = tf.eye(options.images)
    by_keras_cv = keras_cv.layers.CutMix(alpha=1.0, seed=0)({"images": images, "labels": labels})
    mixed = {
        "keras-cv": (by_keras_cv["images"], by_keras_cv["labels"]),
        "pit_keras": mix(images, labels, (0, 0), cutmix_alpha=1.0, mode="element"),
    }
    rows = []
    for name, (images, labels) in mixed.items():
        shares = (np.asarray(images)[..., 0] == numbers[:, None, None]).mean(axis=(1, 2))
        errors = np.abs(np.diagonal(labels) - shares)
        figures = (errors.mean(), errors.max(), (errors > 0.02).mean())
        columns = ("mean_error", "largest_error", "above_0.02")
        rounded = {column: f"{figure:.3f}" for column, figure in zip(columns, figures, strict=True)}
        rows.append({"cutmix": name, "images": options.images, **rounded})
    write_rows(rows, options.output)


if __name__ == "__main__":
    main()
