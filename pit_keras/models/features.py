"""Other outputs of a model: feature maps, pre-logits, attention maps.

Each function returns a `keras.Model` that shares the layers and weights of the given one. Layers
are found by name, so loaded models work too. A model of one output gives it as it is, one of
several a list.
"""

import re
from collections.abc import Sequence

import keras
from keras import layers, ops

from pit_keras.models.attention import BlockView, TransformerBlock
from pit_keras.models.classifier import check_functional

HEADS = ("head", "head_dist")
APPLICATION_HEADS = ("predictions", "logits")  # in keras.applications' networks


def stage_features(model: keras.Model, stages: int | Sequence[int] | None = None) -> keras.Model:
    """The feature extractor: images -> one map (B, h, w, C) for each stage, not normalised.

    For PiT these are three maps, 27, 14 and 7 wide at 224 (PiT-B: 31, 16, 8), for ViT it is one.
    The logits of PiT and ViT depend on the last block's class tokens alone, so their gradient by
    the last map is zero. Grad-CAM takes the tokens (B, T + N, C) that enter the last block: the
    output of `stage3_block3`, or that of `pooling2` where the last stage begins.

    Args:
        model: A model with layers `stage1`, `stage2`, ..., as all of `create_model` have.
        stages: Numbers of stages in the order wanted, such as `(2, 3)`, or one; None for all.
    """
    check_functional(model, "stage_features")
    maps = {
        # A stage ends in its map, or in class tokens and its map.
        int(layer.name.removeprefix("stage")): keras.tree.flatten(layer.output)[-1]
        for layer in model.layers
        if re.fullmatch(r"stage\d+", layer.name)
    }
    if not maps:
        raise ValueError(f"{model.name} has no layers 'stage1', 'stage2', ...: it has no stages.")
    outputs = _chosen(list(maps) if stages is None else stages, maps)
    if not outputs:
        known = ", ".join(map(str, maps))
        raise ValueError(f"{model.name} has no stages {stages!r}; its stages are {known}.")
    return keras.Model(model.input, outputs, name=f"{model.name}_features")


def pre_logits(model: keras.Model) -> keras.Model:
    """The classifier's input, as with `include_top=False`: images -> features (B, C).

    They are normalised in PiT and ViT, and the mean of both tokens' in a distilled model.
    """
    check_functional(model, "pre_logits")
    named = {layer.name: layer for layer in model.layers if layer.weights}
    heads = [named[name] for name in HEADS if name in named]
    heads = heads or [named[name] for name in APPLICATION_HEADS if name in named]
    features = [head.input for head in heads]
    if not features:
        if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
            raise ValueError(f"{model.name} has no layer 'head' and does not give features (B, C).")
        *_, last = named.values() or [None]
        if isinstance(last, layers.Dense):
            raise ValueError(
                f"{model.name} has no layer 'head', and its last layer {last.name!r} may be a "
                "classifier; create it with include_top=False."
            )
        features = model.outputs
    output = features[0] if len(features) == 1 else layers.Average(dtype="float32")(features)
    if len(output.shape) == 4:  # MobileNetV3's classifier is a convolution of one position
        output = layers.Flatten("channels_last")(output)  # (B, 1, 1, C) -> (B, C)
    return keras.Model(model.input, output, name=f"{model.name}_pre_logits")


def attention_maps(
    model: keras.Model, blocks: str | int | Sequence[str | int] | None = None
) -> keras.Model:
    """The attention weights of transformer blocks: images -> (B, heads, T + N, T + N) for each.

    Rows are queries, columns keys, and each row sums to 1, in float32. Class tokens come first,
    then the spatial tokens row by row. The result cannot be saved; save the model, and call this
    function after loading it.

    Args:
        model: A PiT or ViT.
        blocks: Blocks in the order wanted, each by name (`"stage2_block3"`) or by its place from 0
            on (-1 is the last), or one of these; None for all, which takes much memory.
    """
    check_functional(model, "attention_maps")
    found = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    if not found:
        raise ValueError(f"{model.name} has no transformer blocks and so no attention.")
    known = {block.name: block for block in found}
    for place, block in enumerate(found):
        known |= {place: block, place - len(found): block}
    wanted = _chosen(range(len(found)) if blocks is None else blocks, known)
    if not wanted:
        names = ", ".join(block.name for block in found)
        raise ValueError(f"{model.name} has no blocks {blocks!r}; its blocks are {names}.")
    maps = {block: _attention_map(block) for block in dict.fromkeys(wanted)}
    outputs = [maps[block] for block in wanted]
    return _AttentionMaps(model.input, outputs, name=f"{model.name}_attention_maps")


class _AttentionMaps(keras.Model):
    def save(self, *args, **kwargs):  # refuses before Keras opens the file
        raise NotImplementedError(
            "Attention maps share the blocks of their model and cannot be saved; save the model, "
            "and call attention_maps after loading it."
        )


def _attention_map(block):
    view = BlockView(
        block,
        lambda block, inputs: ops.cast(block.attention_of(inputs), "float32"),
        name=f"{block.name}_attention_map",
    )
    return view(block.input)  # (B, N, C) -> (B, heads, N, N)


def _chosen(wanted, known):
    """The values of one or several keys; none if a key is not known."""
    keys = wanted if isinstance(wanted, (list, tuple, range)) else [wanted]
    return [known[key] for key in keys] if all(key in known for key in keys) else []
