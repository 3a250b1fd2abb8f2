"""Fine-tuning layer by layer: learning rates that grow with depth, and frozen stages.

Both read a model's depth from the names of its blocks, `stage1_block1`, `stage1_block2`, ..., and
the order of its layers. Layers before the first block are the embedding, layers between two blocks
(such as a pooling) belong to the block before, and layers after the last block are the top.
"""

import re

_BLOCK = re.compile(r"(stage(\d+)_block\d+)(_.*)?")


def layer_depths(model):
    """The depth of each layer, {name: depth}.

    0 for the embedding, 1 to L for the blocks of all stages, L + 1 for the top, as in BEiT's
    fine-tuning (Bao et al., arXiv 2106.08254) and in timm.
    """
    blocks = _blocks(model)
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()), 1)}
    last = list(blocks)[-1]
    depths, depth = {}, 0
    for layer in model.layers:
        # A block may be several layers, `stage1_block1_conv1`: never back to a lower depth.
        depth = max(depth, numbers.get(blocks.get(layer.name), 0))
        depths[layer.name] = depth
        if layer.name == last:
            depth = len(numbers) + 1
    return depths


def learning_rate_scales(model, layer_decay):
    """Pairs (trainable variable, factor of its rate), which is `layer_decay ** (L + 1 - depth)`."""
    depths = layer_depths(model)
    top = max(depths.values())
    return [
        (variable, layer_decay ** (top - depths[layer.name]))
        for layer in model.layers
        for variable in layer.trainable_variables
    ]


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


def _blocks(model):
    """Layers that are blocks or parts of one, in order, {name of the layer: name of its block}."""
    matches = (_BLOCK.fullmatch(layer.name) for layer in model.layers)
    blocks = {match[0]: match[1] for match in matches if match}
    if not blocks:
        raise ValueError(f"layer_decay and frozen_stages need blocks, which {model.name} lacks.")
    return blocks
