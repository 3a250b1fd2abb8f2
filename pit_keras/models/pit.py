"""Pooling-based Vision Transformer: *Rethinking Spatial Dimensions of Vision Transformers*,
Heo et al., ICCV 2021, arXiv 2103.16302. The whole family is the table `VARIANTS`.
"""

import dataclasses

import keras
from keras import layers

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.classifier import class_token_classifier
from pit_keras.models.patches import embedding_grid, is_dilated, patch_convolution, patch_grid
from pit_keras.models.pooling import TokenPooling
from pit_keras.models.tokens import PositionEmbedding, PrependTokens, SplitTokens, pooled_grid


@dataclasses.dataclass(frozen=True)
class PiT:
    """One variant. Its fields are also the overrides that `create_model` accepts."""

    patch_size: int
    stride: int
    head_dim: int  # channels of one head, the same in all stages
    depths: tuple[int, ...]  # blocks of each stage
    heads: tuple[int, ...]  # heads of each stage; doubling them doubles the channels
    mlp_ratio: float = 4.0
    output_stride: int | None = None  # pixels between the last stage's tokens; None as in table 1
    base_size: tuple[int, int] | None = None  # see `embedding_grid`

    def widths(self):
        """Channels of each stage."""
        return tuple(self.head_dim * heads for heads in self.heads)

    def pooling_strides(self):
        """Stride of the token pooling before each stage; 1 before the first, which has none.

        With half the natural `output_stride`, 16 instead of 32 (PiT-B: 14 instead of 28), the last
        pooling keeps the grid and is dilated instead, for dense prediction.
        """
        poolings = len(self.depths) - 1
        natural = self.stride * TokenPooling.STRIDE**poolings
        dilated = is_dilated(
            self.output_stride, natural, f"pooling, for a patch stride of {self.stride}"
        )
        last = 1 if dilated else TokenPooling.STRIDE
        return (1, *(poolings - 1) * (TokenPooling.STRIDE,), last)

    def grids(self, image_size):
        """Height and width in tokens of each stage, 27 -> 14 -> 7 at 224; None stays None."""
        grids = [patch_grid(image_size, self.patch_size, self.stride)]
        for stage, stride in enumerate(self.pooling_strides()[1:], 1):
            if stride > 1 and any(side is not None and side < 2 for side in grids[-1]):
                raise ValueError(
                    f"An image of {image_size[0]} x {image_size[1]} pixels leaves stage {stage} a "
                    f"grid of {grids[-1][0]} x {grids[-1][1]} tokens, which pooling cannot halve; "
                    "use a larger image, or a smaller patch_size and stride."
                )
            grids.append(pooled_grid(grids[-1], stride))
        return tuple(grids)


# Table 1.
VARIANTS = {
    "pit_ti": PiT(16, 8, head_dim=32, depths=(2, 6, 4), heads=(2, 4, 8)),
    "pit_xs": PiT(16, 8, head_dim=48, depths=(2, 6, 4), heads=(2, 4, 8)),
    "pit_s": PiT(16, 8, head_dim=48, depths=(2, 6, 4), heads=(3, 6, 12)),
    "pit_b": PiT(14, 7, head_dim=64, depths=(3, 6, 4), heads=(4, 8, 16)),
}


def build(variant, settings):
    """Builds a PiT: images (B, H, W, channels) -> logits (B, classes).

    Each stage ends in a layer `stage1`, `stage2`, ... whose second output is the stage's feature
    map (B, h, w, C).
    """
    image_size = settings.input_shape[:2]
    grids, widths = variant.grids(image_size), variant.widths()
    strides = variant.pooling_strides()
    drop_path_rates = iter(settings.drop_path_rates(sum(variant.depths)))

    images = keras.Input(settings.input_shape, name="images")
    x = patch_convolution(images, widths[0], variant.patch_size, variant.stride)  # (B, h, w, C)
    feature_map = x
    x = PositionEmbedding(embedding_grid(variant, image_size), name="position_embedding")(x)
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
        grid, stride = grids[stage - 1], strides[stage - 1]
        split = SplitTokens(settings.num_tokens, grid, stride, name=f"stage{stage}")
        # -> (B, T, C), (B, h, w, C)
        tokens, feature_map = split([x, feature_map] if None in grid else x)
        if stage < len(widths):
            x = _pooling(widths, strides[stage], stage)([tokens, feature_map])  # (B, T + h * w, C)

    # Only the class tokens are normalised; the feature map leaves as it is.
    outputs = class_token_classifier(tokens, settings, initialization="torch_default")
    return keras.Model(images, outputs, name=settings.name)


def _pooling(widths, stride, stage):
    """The token pooling after a stage; see `PiT.pooling_strides`."""
    before, after = widths[stage - 1], widths[stage]
    if after % before:
        raise ValueError(
            f"Stage {stage + 1} has {after} channels, not a multiple of the {before} before it; a "
            "depth-wise pooling can only multiply channels."
        )
    dilation = 1 if stride > 1 else TokenPooling.STRIDE
    return TokenPooling(after // before, stride, dilation, name=f"pooling{stage}")
