"""Pooling-based Vision Transformer: *Rethinking Spatial Dimensions of Vision Transformers*,
Heo et al., ICCV 2021, arXiv 2103.16302. The whole family is the table `VARIANTS`.
"""

import dataclasses

import keras
from keras import layers

from pit_keras.models.classifier import class_token_classifier
from pit_keras.models.layers import (
    LAYER_NORM_EPSILON,
    PositionEmbedding,
    PrependTokens,
    SplitTokens,
    TokenPooling,
    TransformerBlock,
    pooled_grid,
)
from pit_keras.models.patches import patch_convolution, patch_grid


@dataclasses.dataclass(frozen=True)
class PiT:
    """One variant. Its fields are also the overrides that `create_model` accepts."""

    patch_size: int
    stride: int
    head_dim: int  # channels of one head, the same in all stages
    depths: tuple[int, ...]  # blocks of each stage
    heads: tuple[int, ...]  # heads of each stage; doubling them doubles the channels
    mlp_ratio: float = 4.0

    def widths(self):
        """Channels of each stage."""
        return tuple(self.head_dim * heads for heads in self.heads)

    def grids(self, image_size):
        """Height and width in tokens of each stage, 27 -> 14 -> 7 at 224 (table 1).

        Raises:
            ValueError: If the image is smaller than a patch, or if a grid is too small to be
                pooled.
        """
        grids = [patch_grid(image_size, self.patch_size, self.stride)]
        for stage in range(1, len(self.depths)):
            if min(grids[-1]) < 2:
                raise ValueError(
                    f"An image of {image_size[0]} x {image_size[1]} pixels leaves stage {stage} a "
                    f"grid of {grids[-1][0]} x {grids[-1][1]} tokens, which pooling cannot halve; "
                    f"use a larger image, or a patch smaller than {self.patch_size} with a stride "
                    f"smaller than {self.stride}."
                )
            grids.append(pooled_grid(grids[-1]))
        return tuple(grids)


# Table 1.
VARIANTS = {
    "pit_ti": PiT(16, 8, head_dim=32, depths=(2, 6, 4), heads=(2, 4, 8)),
    "pit_xs": PiT(16, 8, head_dim=48, depths=(2, 6, 4), heads=(2, 4, 8)),
    "pit_s": PiT(16, 8, head_dim=48, depths=(2, 6, 4), heads=(3, 6, 12)),
    "pit_b": PiT(14, 7, head_dim=64, depths=(3, 6, 4), heads=(4, 8, 16)),
}


def build(variant, settings):
    """Builds a PiT as a functional `keras.Model`.

    Args:
        variant: A `PiT`.
        settings: `pit_keras.models.registry.Settings`, what is common to all models.

    Returns:
        A model from images (B, H, W, channels) to logits (B, classes). Each stage ends in a layer
        `stage1`, `stage2`, ... whose second output is the stage's feature map (B, h, w, C).
    """
    grids, widths = variant.grids(settings.input_shape[:2]), variant.widths()
    drop_path_rates = iter(settings.drop_path_rates(sum(variant.depths)))

    images = keras.Input(settings.input_shape, name="images")
    x = patch_convolution(images, widths[0], variant.patch_size, variant.stride)  # (B, h, w, C)
    x = PositionEmbedding(name="position_embedding")(x)
    x = layers.Dropout(settings.drop_rate, name="position_drop")(x)
    x = PrependTokens(settings.num_tokens, name="class_tokens")(x)  # -> (B, T + h * w, C)

    for stage, (depth, heads) in enumerate(zip(variant.depths, variant.heads, strict=True), 1):
        for block in range(1, depth + 1):
            x = TransformerBlock(
                heads,
                variant.mlp_ratio,
                settings.drop_rate,
                settings.attention_drop_rate,
                next(drop_path_rates),
                name=f"stage{stage}_block{block}",
            )(x)
        split = SplitTokens(settings.num_tokens, grids[stage - 1], name=f"stage{stage}")
        tokens, feature_map = split(x)  # (B, T, C), (B, h, w, C)
        if stage < len(widths):
            multiplier = _channel_multiplier(widths, stage)
            x = TokenPooling(multiplier, name=f"pooling{stage}")([tokens, feature_map])

    # Only the class tokens are normalised; the feature map leaves as it is.
    tokens = layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name="norm")(tokens)
    outputs = class_token_classifier(tokens, settings, initialization="torch_default")
    return keras.Model(images, outputs, name=settings.name)


def _channel_multiplier(widths, stage):
    before, after = widths[stage - 1], widths[stage]
    if after % before:
        raise ValueError(
            f"Stage {stage + 1} has {after} channels, which is not a multiple of the {before} "
            "before it: a depth-wise pooling can only multiply channels."
        )
    return after // before
