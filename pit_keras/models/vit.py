"""Vision Transformer with DeiT's sizes (Touvron et al., arXiv 2012.12877), which the paper compares
PiT with. The whole family is the table `VARIANTS`.
"""

import dataclasses

import keras
from keras import layers

from pit_keras.models.attention import TransformerBlock
from pit_keras.models.classifier import class_token_classifier
from pit_keras.models.patches import embedding_grid, patch_convolution, patch_grid
from pit_keras.models.tokens import PositionEmbedding, PrependTokens, SplitTokens


@dataclasses.dataclass(frozen=True)
class ViT:
    """One variant. Its fields are also the overrides that `create_model` accepts."""

    patch_size: int
    stride: int
    head_dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    base_size: tuple[int, int] | None = None  # see `embedding_grid`

    def widths(self):
        """Channels of its only stage, as a tuple like PiT's."""
        return (self.head_dim * self.heads,)

    def grids(self, image_size):
        """Height and width in tokens of its only stage, 14 x 14 at 224; None stays None."""
        return (patch_grid(image_size, self.patch_size, self.stride),)


# DeiT, table 1.
VARIANTS = {
    "vit_ti": ViT(16, 16, head_dim=64, depth=12, heads=3),
    "vit_s": ViT(16, 16, head_dim=64, depth=12, heads=6),
    "vit_b": ViT(16, 16, head_dim=64, depth=12, heads=12),
}


def build(variant, settings):
    """Builds a ViT: images (B, H, W, channels) -> logits (B, classes).

    Unlike in PiT, the class tokens have a position embedding too. The only feature map is that of
    `stage1`.
    """
    image_size = settings.input_shape[:2]
    (grid,), (width,) = variant.grids(image_size), variant.widths()
    base_grid = embedding_grid(variant, image_size)

    images = keras.Input(settings.input_shape, name="images")
    patches = patch_convolution(images, width, variant.patch_size, variant.stride)  # (B, h, w, C)
    x = PrependTokens(settings.num_tokens, name="class_tokens")(patches)  # -> (B, T + h * w, C)
    embedded_tokens = 0 if base_grid is None else settings.num_tokens
    embedding = PositionEmbedding(base_grid, embedded_tokens, name="position_embedding")
    x = embedding(x if base_grid is None else [x, patches])
    x = layers.Dropout(settings.drop_rate, name="position_drop")(x)
    for block, drop_path_rate in enumerate(settings.drop_path_rates(variant.depth), 1):
        x = TransformerBlock(
            variant.heads,
            variant.mlp_ratio,
            settings.drop_rate,
            settings.attention_drop_rate,
            drop_path_rate,
            initialization="truncated_normal",
            name=f"stage1_block{block}",
        )(x)
    split = SplitTokens(settings.num_tokens, grid, name="stage1")
    tokens, _ = split([x, patches] if None in grid else x)  # (B, T, C), (B, h, w, C)
    outputs = class_token_classifier(tokens, settings, initialization="truncated_normal")
    return keras.Model(images, outputs, name=settings.name)
