"""What functions of an example's seed give for many examples."""

import numpy as np
import tensorflow as tf

from pit_keras.data.seeds import example_seed
from pit_keras.data.source import as_written


@as_written
def drawn(function, count, epoch=0):
    """The outputs of `function(seed)` for the examples 0, 1, ..., stacked: (count, ...) each."""
    seeds = tf.data.Dataset.range(count).map(lambda number: example_seed(0, epoch, number))
    outputs = seeds.map(function).batch(count).get_single_element()
    return tf.nest.map_structure(np.asarray, outputs)
