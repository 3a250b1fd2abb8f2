"""What fine-tuning does layer by layer: learning rates that grow with depth, and frozen stages.

Both read a model's depth from the names of its blocks, `stage1_block1`, `stage1_block2`, ..., and
from the order of its layers: what comes before the first block is the embedding, what comes between
two blocks, such as a pooling, belongs to the block before it, and what comes after the last block
is the top, norm and heads.
"""

import contextlib
import re

_BLOCK = re.compile(r"(stage(\d+)_block\d+)(_.*)?")


def layer_depths(model):
    """Depth of each layer of a model, {name: depth}.

    The embedding (patches, positions and class tokens) has depth 0, the blocks are numbered from 1
    to L over all stages, and the top has L + 1, as in BEiT's fine-tuning (Bao et al., arXiv
    2106.08254) and in timm.

    Raises:
        ValueError: If the model has no blocks.
    """
    blocks = _blocks(model)
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()), 1)}
    last = list(blocks)[-1]
    depths, depth = {}, 0
    for layer in model.layers:
        # A block may be spelled out as several layers, `stage1_block1_conv1`: never back again.
        depth = max(depth, numbers.get(blocks.get(layer.name), 0))
        depths[layer.name] = depth
        if layer.name == last:
            depth = len(numbers) + 1
    return depths


def learning_rate_scales(model, layer_decay):
    """Layer-wise decay of the learning rate: `layer_decay ** (L + 1 - depth)`.

    Args:
        model: A model with blocks, see `layer_depths`.
        layer_decay: In (0, 1]; the rate of a block as a multiple of the next block's.

    Returns:
        Pairs (variable, factor) of all trainable variables; the top's factor is 1.

    Raises:
        ValueError: If the model has no blocks.
    """
    depths = layer_depths(model)
    top = max(depths.values())
    return [
        (variable, layer_decay ** (top - depths[layer.name]))
        for layer in model.layers
        for variable in layer.trainable_variables
    ]


def freeze(model, stages):
    """Makes the embedding and the first stages of a model untrainable.

    All layers up to the last block of stage `stages` are frozen, so the pooling behind it is
    trained with the stage that it leads to. With all stages frozen only norm and heads are trained.
    A frozen BatchNormalization runs in inference mode; dropout and drop path still drop.

    Args:
        model: A model with blocks named as above.
        stages: How many; 0 for none.

    Raises:
        ValueError: If the model has fewer stages.
    """
    if not stages:
        return
    stage_of = {name: int(_BLOCK.fullmatch(name)[2]) for name in _blocks(model)}
    if stages > max(stage_of.values()):
        raise ValueError(
            f"{model.name} has {max(stage_of.values())} stages, so {stages} cannot be frozen."
        )
    names = [layer.name for layer in model.layers]
    end = max(names.index(name) for name, stage in stage_of.items() if stage <= stages)
    for layer in model.layers[: end + 1]:
        layer.trainable = False


@contextlib.contextmanager
def all_trainable(model):
    """Within it no layer is frozen: for saving a model that its user can train as a whole."""
    frozen = [layer for layer in model.layers if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = False


def _blocks(model):
    """Layers that are blocks or parts of one, in order, {name of the layer: name of its block}."""
    matches = (_BLOCK.fullmatch(layer.name) for layer in model.layers)
    blocks = {match[0]: match[1] for match in matches if match}
    if not blocks:
        raise ValueError(
            f"{model.name} has no layers stage1_block1, stage1_block2, ...: its depth, which "
            "layer_decay and frozen_stages go by, is unknown."
        )
    return blocks
