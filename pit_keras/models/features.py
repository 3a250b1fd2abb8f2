"""What can be read from a model besides its output: feature maps, pre-logits, attention maps.

Each function returns a plain `keras.Model` that shares its layers and weights with the given one.
They read layers by name, so they work on loaded models too.
"""

import numbers

import keras
from keras import layers, ops

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.classifier import check_functional

HEADS = ("head", "head_dist")
APPLICATION_HEADS = ("predictions", "logits")  # in keras.applications' networks
UNSAVABLE = (
    "A model of attention maps shares its blocks with the model that it was made from and cannot "
    "be saved; save that one, and call attention_maps after loading it."
)


def stage_features(model, stages=None):
    """The feature extractor: images -> one map (B, h, w, C) for each stage, not normalised.

    For PiT these are three maps, 27, 14 and 7 wide at 224 (PiT-B: 31, 16, 8), for ViT it is one.

    Args:
        model: A model whose stages end in layers `stage1`, `stage2`, ..., as all models of
            `create_model` do.
        stages: Numbers of the stages wanted, in the order wanted, such as `(2, 3)`, or one number;
            None for all.

    Returns:
        A `keras.Model`. Like every Keras model it gives a list of several outputs, but a single
        output as it is.

    Raises:
        ValueError: If the model is not functional, has no stages, or not those.
    """
    check_functional(model, "stage_features")
    names = [layer.name for layer in model.layers]
    ends = {
        int(name[5:]): name for name in names if name.startswith("stage") and name[5:].isdigit()
    }
    if not ends:
        raise ValueError(f"{model.name} has no layers 'stage1', 'stage2', ...: it has no stages.")
    wanted = _chosen(stages, ends, ends)
    if not wanted:
        known = ", ".join(map(str, ends))
        raise ValueError(f"{model.name} has no stages {stages!r}; its stages are {known}.")
    maps = [_feature_map(model.get_layer(ends[stage])) for stage in wanted]
    return keras.Model(model.input, maps, name=f"{model.name}_features")


def _feature_map(layer):
    """A stage ends in its map, or in class tokens and its map."""
    return layer.output[-1] if isinstance(layer.output, (list, tuple)) else layer.output


def pre_logits(model):
    """What the classifier sees: images -> features (B, C), which are normalised in PiT and ViT.

    For a distilled model it is the mean of the class token's and the distillation token's features,
    as a model built with `include_top=False` gives it.

    Raises:
        ValueError: If the model is not functional, or neither has a classifier of a known name nor
            gives features (B, C) itself.
    """
    check_functional(model, "pre_logits")
    features = [head.input for head in _classifiers(model)]
    if not features:
        if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
            raise ValueError(f"{model.name} has no layer 'head' and does not give features (B, C).")
        last = [layer for layer in model.layers if layer.weights][-1:]
        if last and isinstance(last[0], layers.Dense):
            raise ValueError(
                f"{model.name} has no layer 'head', and whether its last layer {last[0].name!r} is "
                "a classifier cannot be told; create it with include_top=False."
            )
        features = model.outputs
    output = features[0] if len(features) == 1 else layers.Average(dtype="float32")(features)
    if len(output.shape) == 4:  # MobileNetV3's classifier is a convolution of one position
        output = layers.Flatten()(output)  # (B, 1, 1, C) -> (B, C)
    return keras.Model(model.input, output, name=f"{model.name}_pre_logits")


def _classifiers(model):
    """The layers that compute logits: those called `head...`, or else keras.applications'."""
    named = {layer.name: layer for layer in model.layers if layer.weights}
    heads = [named[name] for name in HEADS if name in named]
    return heads or [named[name] for name in APPLICATION_HEADS if name in named]


def attention_maps(model, blocks=None):
    """The attention weights of transformer blocks: images -> (B, heads, T + N, T + N) for each.

    Rows are queries, columns keys, and each row sums to 1; class tokens come first, then the
    spatial tokens row by row. All maps are float32. For analysis: the maps of all blocks at once
    need as much memory as there are of them.

    The result shares its blocks with the model and cannot be saved; save the model, and call this
    function after loading it.

    Args:
        model: A PiT or ViT.
        blocks: Blocks in the order wanted, each by name (`"stage2_block3"`) or by its place in the
            model, from 0 on (-1 is the last), or one of these; None for all.

    Returns:
        A `keras.Model`. Like every Keras model it gives a list of several outputs, but a single
        output as it is.

    Raises:
        ValueError: If the model is not functional, has no transformer blocks, or not those.
    """
    check_functional(model, "attention_maps")
    found = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    if not found:
        raise ValueError(f"{model.name} has no transformer blocks and so no attention.")
    known = {block.name: block for block in found}
    for place, block in enumerate(found):
        known |= {place: block, place - len(found): block}
    wanted = _chosen(blocks, range(len(found)), known)
    if not wanted:
        names = ", ".join(block.name for block in found)
        raise ValueError(f"{model.name} has no blocks {blocks!r}; its blocks are {names}.")
    maps = {block: AttentionMap(block)(block.input) for block in map(known.get, wanted)}
    outputs = [maps[known[block]] for block in wanted]
    return _AttentionMaps(model.input, outputs, name=f"{model.name}_attention_maps")


class _AttentionMaps(keras.Model):
    """Refuses to be saved before the file is opened, so that none is left behind."""

    def save(self, *args, **kwargs):
        raise NotImplementedError(UNSAVABLE)


class AttentionMap(layers.Layer):
    """The attention weights of a transformer block, for the block's own input.

    (B, N, C) -> (B, heads, N, N), float32 whatever the precision.

    Args:
        block: A built `TransformerBlock`. The layer has no weights but the block's.
    """

    def __init__(self, block):
        super().__init__(dtype=block.dtype_policy, name=f"{block.name}_attention_map")
        self.block = block

    def call(self, inputs):
        return ops.cast(self.block.attention_of(inputs), "float32")

    def compute_output_spec(self, inputs):
        batch, positions, _ = inputs.shape
        shape = (batch, self.block.num_heads, positions, positions)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self):
        raise NotImplementedError(UNSAVABLE)


def _chosen(wanted, everything, known):
    """What is wanted, as a list; an empty one if any of it is not known."""
    if wanted is None:
        return list(everything)
    if hasattr(wanted, "tolist"):  # NumPy's numbers and arrays
        wanted = wanted.tolist()
    chosen = list(wanted) if isinstance(wanted, (list, tuple, range)) else [wanted]
    return chosen if all(_is_key(one) and one in known for one in chosen) else []


def _is_key(value):
    return isinstance(value, (numbers.Integral, str)) and not isinstance(value, bool)
