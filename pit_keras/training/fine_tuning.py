"""Fine-tuning with frozen stages. Blocks are known by their names: `stage1_block1`, ..."""

import re

_BLOCK = re.compile(r"(stage(\d+)_block\d+)(_.*)?")


def freeze(model, stages):
    """Makes the embedding and the first stages of a model untrainable.

    The pooling after the last frozen stage stays trainable, with the stage that it leads to.
    A frozen BatchNormalization runs in inference mode; dropout and drop path still drop.
    """
    if not stages:
        return
    stage_of = {name: int(_BLOCK.fullmatch(name)[2]) for name in _blocks(model)}
    last = max(stage_of.values())
    if stages > last:
        raise ValueError(f"{model.name} has {last} stages; {stages} cannot be frozen.")
    names = [layer.name for layer in model.layers]
    end = max(names.index(name) for name, stage in stage_of.items() if stage <= stages)
    for layer in model.layers[: end + 1]:
        layer.trainable = False


def trains_blocks(model):
    """Whether a block of the model is trainable; ValueError for a model without blocks."""
    return any(model.get_layer(name).trainable_variables for name in _blocks(model))


def _blocks(model):
    """Layers that are blocks or parts of one, in order, {name of the layer: name of its block}."""
    matches = (_BLOCK.fullmatch(layer.name) for layer in model.layers)
    blocks = {match[0]: match[1] for match in matches if match}
    if not blocks:
        raise ValueError(f"layer_decay and frozen_stages need blocks, which {model.name} lacks.")
    return blocks
