"""Spatial interaction of a network's blocks (section 3.3, figure 5).

A block's interaction is the share of spatial locations that receive attention above a threshold,
after the softmax. A location counts once if any head reaches it; the share is averaged over query
tokens and images. Class and distillation tokens take part in the softmax, as in the model, but are
neither queries nor counted unless a `Definition` says so.

A convolution has no such weights. The paper compares with the 3 x 3 positions that one reads over
all positions of its map, see `convolution_interaction`.
"""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from pit_keras.errors import require_tensorflow
from pit_keras.models.attention import BlockView, TransformerBlock, has_transformer_blocks
from pit_keras.models.classifier import check_functional
from pit_keras.models.tokens import PrependTokens
from pit_keras.waits import counted


@dataclasses.dataclass(frozen=True)
class Definition:
    """What counts as interaction; by default as in figure 5."""

    thresholds: tuple[float, ...] = (0.01, 0.1)  # of a query's attention, that a key must exceed
    queries: str = "spatial"  # or "class", which includes the distillation token, or "all"
    keys: str = "spatial"  # the tokens that are counted, likewise; the softmax is over all

    def __post_init__(self):
        if not self.thresholds or len(set(self.thresholds)) < len(self.thresholds):
            given = ", ".join(map(str, self.thresholds)) or "none"
            raise ValueError(f"Thresholds must be one or more, all different; got {given}.")
        for threshold in self.thresholds:
            if not 0 <= threshold <= 1:
                raise ValueError(f"A threshold is a number in 0..1, such as 0.01; got {threshold}.")


def interaction_shares(attention, num_tokens=1, definition=Definition()):
    """The definition itself, for all thresholds at once.

    Attention weights (B, heads, T + N, T + N), with T = `num_tokens`, -> float32 (B, thresholds).
    """
    kinds = {
        "spatial": slice(num_tokens, None),
        "class": slice(None, num_tokens),
        "all": slice(None),
    }
    queries, keys = kinds[definition.queries], kinds[definition.keys]
    largest = ops.max(attention, axis=1)[:, queries, keys]  # -> (B, queries, keys)
    largest = ops.cast(largest, "float32")
    shares = [
        ops.mean(ops.cast(largest > threshold, "float32"), axis=(1, 2))
        for threshold in definition.thresholds
    ]
    return ops.stack(shares, axis=-1)


def interaction_model(model, definition=Definition()):
    """The interaction of all blocks in one forward pass: images -> (B, blocks, thresholds).

    It shares layers and weights with the PiT or ViT, runs on any backend, and cannot be saved.
    """
    check_functional(model, "interaction_model")
    if not has_transformer_blocks(model):
        raise ValueError(f"{model.name} has no transformer blocks and so no attention.")
    (num_tokens,) = (x.num_tokens for x in model.layers if isinstance(x, PrependTokens))
    shares = []

    def with_interaction(block, inputs):  # (B, N, C) -> (B, N, C), (B, thresholds)
        outputs, attention = block.with_attention(inputs)  # in one run; the map is not kept
        return outputs, interaction_shares(attention, num_tokens, definition)

    def in_place_of(layer):
        if not isinstance(layer, TransformerBlock):
            return layer
        return BlockView(layer, with_interaction, f"{layer.name}_interaction")

    def call(layer, *arguments, **keywords):
        outputs = layer(*arguments, **keywords)
        if isinstance(layer, BlockView):
            outputs, shares_of_block = outputs
            shares.append(shares_of_block)
        return outputs

    rewired = keras.models.clone_model(model, clone_function=in_place_of, call_function=call)
    outputs = ops.stack(shares, axis=1)  # -> (B, blocks, thresholds)
    return keras.Model(rewired.input, outputs, name=f"{model.name}_interaction")


def convolution_interaction(model, name=None):
    """The paper's approximation for ResNet50: the share of its input map that a convolution reads.

    It reads k x k positions, or as many as a shorter side has. There is no threshold: each of nine
    positions that count alike has 11%, more than either of figure 5's. The result is, by name of
    each convolution within blocks larger than 1 x 1, the share and the map's (height, width).
    """
    found = {}
    for layer in model.layers:
        is_in_block = isinstance(layer, layers.Conv2D) and "_block" in layer.name
        if is_in_block and max(layer.kernel_size) > 1:
            grid = layer.input.shape[1:3]
            reach = [min(pair) for pair in zip(layer.kernel_size, grid, strict=True)]
            found[layer.name] = np.prod(reach) / np.prod(grid), grid
    if not found:
        raise ValueError(
            f"{name or model.name} has neither attention nor blocks of convolutions like resnet50."
        )
    return found


def measure_interaction(model, batches, definition=Definition()):
    """Mean interaction of a PiT or ViT, float64 (blocks, thresholds), and the number of images.

    Images of weight 0 do not count.
    """
    import tensorflow as tf  # here, since all that stands above runs on any backend

    require_tensorflow("Measuring interaction")
    shares_of = interaction_model(model, definition)

    @tf.function(autograph=False)
    def sums(images, weights):
        shares = shares_of(images, training=False)  # (B, blocks, thresholds)
        return tf.einsum("b,bkt->kt", weights, shares), tf.reduce_sum(weights)

    total, images = 0.0, 0
    for batch in batches:
        shares, count = sums(batch["image"], batch["weight"])
        total, images = total + shares.numpy().astype("float64"), images + int(count)
    return total / images, images


def check_measurable(network, source, split):
    """Raises ValueError, before long work, for what `interaction_of_source` cannot measure."""
    if not has_transformer_blocks(network.model):
        convolution_interaction(network.model, network.name)
    elif not source.sizes[split]:
        raise ValueError(f"{source.name} has no images in its split {split!r}.")


def interaction_of_source(
    network,
    source,
    split="val",
    *,
    images=1000,
    batch_size=16,
    definition=Definition(),
    progress=True,
):
    """Interaction of an `opened_networks.Network` over a data set: a row per block and threshold.

    Without attention it is the approximation, which needs no images.

    Args:
        source: Of `open_source`; its classes do not matter.
        images: How many, from all over the split; all if it has fewer.
        batch_size: Images at a time; with the size of the largest map it bounds the memory.
    """
    check_measurable(network, source, split)
    if not has_transformer_blocks(network.model):
        return _rows(network, definition, convolution_interaction(network.model))
    from pit_keras.data.pipeline import evaluation_batches
    from pit_keras.data.unreadable import UnreadableImages

    images, unreadable = min(images, source.sizes[split]), UnreadableImages()
    batches = evaluation_batches(
        source, split, network.data, batch_size=batch_size, cap=images, unreadable=unreadable
    )
    if progress:
        batches = counted(batches, f"Measuring {network.name}", -(-images // batch_size))
    with unreadable.plain_errors():
        shares, count = measure_interaction(network.model, batches, definition)
    found, model = {}, network.model
    blocks = (layer for layer in model.layers if isinstance(layer, TransformerBlock))
    for block, share in zip(blocks, shares, strict=True):
        _, feature_map = model.get_layer(block.name.partition("_")[0]).output  # `stage1`
        found[block.name] = share, feature_map.shape[1:3]
    origin = {"images": count, "dataset": source.name, "split": split}
    return _rows(network, definition, found, origin)


def _rows(network, definition, found, origin=None):
    """Rows from shares by name of the layer; without `origin` they are an approximation."""
    thresholds = definition.thresholds
    return [
        {
            "model": network.name,
            "weights": network.weights,
            "kind": "measured" if origin else "approximation",
            "block": number,
            "layer": layer,
            "grid": "x".join(map(str, grid)),
            "queries": definition.queries if origin else "spatial",
            "keys": definition.keys if origin else "spatial",
            "threshold": threshold,
            "share": round(float(share), 6),
            **(origin or {"images": "", "dataset": "", "split": ""}),
        }
        for number, (layer, (shares, grid)) in enumerate(found.items(), 1)
        # One share for all thresholds, or one for each.
        for threshold, share in zip(thresholds, np.full(len(thresholds), shares), strict=True)
    ]
