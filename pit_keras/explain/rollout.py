"""Where a decision comes from: attention rollout (Abnar & Zuidema, arXiv 2005.00928) through PiT.

A block passes its tokens on half as they were (its residual branch) and half mixed by its
attention, the mean of its heads: (A + I) / 2, whose rows sum to 1. Followed from the class token at
the end of the model back to a stage's input, this gives each of the stage's tokens a share of the
decision.

Token pooling is such a mixture too: a pooled token comes from the 3 x 3 tokens under the kernel, in
proportion to the absolute weights of the depth-wise filters, averaged over channels and without
taps beyond the border. A class token comes from the same class token.

MLPs, values and norms move nothing between tokens and are left out: the shares show where
information can have come from, not what speaks for a class.
"""

import keras
import numpy as np
from keras import ops

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.features import attention_maps, stage_features
from pit_keras.models.pooling import TokenPooling
from pit_keras.models.tokens import pooled_grid


class Rollout:
    """The rollout of a PiT or ViT; built once, for any number of images."""

    def __init__(self, model):
        maps, features = attention_maps(model).outputs, stage_features(model).outputs
        self._steps = [
            layer for layer in model.layers if isinstance(layer, (TransformerBlock, TokenPooling))
        ]
        self._blocks, self._reader = len(maps), keras.Model(model.input, [*maps, *features])

    def __call__(self, images):
        """Shares of the decision: normalised images (B, H, W, 3) -> float64 (B, h, w) per stage.

        The grid is that of the stage's input, first that of the image's patches. The rest of an
        image's sum to 1 is the class (and distillation) tokens' own. In a distilled model the
        decision is the mean of both tokens', as the logits are. All blocks' attention maps are in
        memory at once, for PiT-S 19 MB for each image.
        """
        outputs = [ops.convert_to_numpy(x) for x in self._reader(images, training=False)]
        maps, features = outputs[: self._blocks], outputs[self._blocks :]
        grids = [feature_map.shape[1:3] for feature_map in features]
        num_tokens = maps[-1].shape[-1] - np.prod(grids[-1])
        shares = np.zeros((len(images), maps[-1].shape[-1]))  # (B, T + N)
        shares[:, :num_tokens] = 1 / num_tokens
        stages = []
        for step in reversed(self._steps):
            if isinstance(step, TransformerBlock):
                mixing = maps.pop().mean(axis=1)  # (B, heads, queries, keys) -> (B, queries, keys)
                shares = (shares + np.einsum("bq,bqk->bk", shares, mixing)) / 2
            else:
                stages.append(shares[:, num_tokens:])
                pooling = pooling_shares(step, grids[-len(stages) - 1])
                # (B, pooled positions) -> (B, positions of the stage before)
                shares = np.hstack([shares[:, :num_tokens], stages[-1] @ pooling])
        stages.append(shares[:, num_tokens:])
        return [x.reshape(-1, *grid) for x, grid in zip(reversed(stages), grids, strict=True)]


def pooling_shares(pooling, grid):
    """From where a pooled token comes: (pooled positions, positions), rows that sum to 1.

    `grid` is height and width of the map before the pooling.
    """
    kernel = ops.convert_to_numpy(pooling.depthwise_conv.kernel)  # (3, 3, C, multiplier)
    # A filter of zeros, which a pruned one may be, gives equal shares.
    taps = np.abs(kernel).mean(axis=(2, 3), dtype="float64") + keras.backend.epsilon()
    rows, columns = (_is_under_tap(pooling, side) for side in grid)
    shares = np.einsum("iay,jbx,ab->ijyx", rows, columns, taps)  # (h', w', h, w)
    shares = shares.reshape(len(rows) * len(columns), -1)
    return shares / shares.sum(axis=1, keepdims=True)


def _is_under_tap(pooling, side):
    """Along one side, 1 where a tap of the kernel lies for a pooled token: (pooled, taps, side)."""
    centres = pooling.stride * np.arange(pooled_grid((side,), pooling.stride)[0])
    taps = pooling.dilation * (np.arange(pooling.KERNEL) - pooling.KERNEL // 2)
    return np.float64(centres[:, None, None] + taps[:, None] == np.arange(side))


def token_centres(model):
    """Where tokens lie on the image, along a side: token i at `first + spacing * i` pixels.

    Returns `first`, and for each stage its `spacing`. Pixel i is centred at i.
    """
    patches = model.get_layer("patch_embedding")
    strides = [x.stride for x in model.layers if isinstance(x, TokenPooling)]
    spacings = patches.strides[0] * np.cumprod([1, *strides])
    return (patches.kernel_size[0] - 1) / 2, spacings.tolist()
