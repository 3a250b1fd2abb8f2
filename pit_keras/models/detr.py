"""DETR (Carion et al., ECCV 2020, arXiv 2005.12872) on the backbones of the PiT paper's section 4.2
and table 4: a detector whose answers are a set. The whole family is the table `VARIANTS`.

    images -> backbone -> feature map of stride 16 -> encoder -> decoder <- object queries

and from the decoder's output for each query a class and a box.
"""

import dataclasses
from collections.abc import Mapping

import keras
from keras import layers, ops

from pit_keras.models import pit, resnet, vit
from pit_keras.models.classifier import check_functional
from pit_keras.models.detr_layers import (
    LAYER_NORM_EPSILON,
    BoxHead,
    DetrDecoderLayer,
    DetrEncoderLayer,
    FeaturePadding,
    Fork,
    ObjectQueries,
    SinePositions,
)
from pit_keras.models.features import stage_features
from pit_keras.models.initializers import linear_initializers

COCO_CLASSES = 91  # as DETR's authors count them: COCO's ids up to 90, 80 of them in use
INPUT_PROJECTION = "input_projection"  # the first layer behind the backbone
_SHARED = ("queries", "keys", "memory")  # inputs of all decoder layers
_FIXED = {"override": False}


@dataclasses.dataclass(frozen=True)
class Detr:
    """One detector. Its fields, and those of its backbone, are the overrides of `create_model`."""

    backbone: str = dataclasses.field(metadata=_FIXED)  # a name of `list_models()`
    backbone_fields: Mapping = dataclasses.field(metadata=_FIXED)  # that differ from its own row
    queries: int = 100  # the most objects that can be found in an image
    encoder_layers: int = 6
    decoder_layers: int = 6
    hidden_width: int = 256
    hidden_heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1  # in encoder and decoder
    normalize_features: bool = False  # a LayerNormalization of the backbone's map

    def grids(self, image_size):
        """Height and width of each of the backbone's stages; None stays None."""
        rows = {**pit.VARIANTS, **vit.VARIANTS, **resnet.VARIANTS}
        return dataclasses.replace(rows[self.backbone], **self.backbone_fields).grids(image_size)


# Table 4. The maps of all three have stride 16: the last stage of PiT and of ResNet is dilated.
VARIANTS = {
    "detr_pit_s": Detr("pit_s", {"output_stride": 16}),
    "detr_vit_s": Detr("vit_s", {}),
    "detr_resnet50": Detr("resnet50", {"output_stride": 16}),
}


def build(variant, settings, backbone):
    """Builds a detector on a backbone without classifier, whose layers become the detector's.

    Images (B, H, W, 3) -> {"logits": (B, Q, classes + 1), the last for "no object", "boxes":
    (B, Q, 4), centre x, centre y, width, height, as shares of the image's sides}, in float32.
    """
    settings.require("include_top", True, "A detector has heads")
    settings.require("classifier_activation", None, "A detector gives logits")
    if variant.hidden_width % variant.hidden_heads or variant.hidden_width % 4:
        raise ValueError(
            f"hidden_width of {settings.name} must be a multiple of 4 and of its "
            f"{variant.hidden_heads} heads; got {variant.hidden_width}."
        )
    x = stage_features(backbone).outputs[-1]  # (B, h, w, channels)
    if variant.normalize_features:
        x = layers.LayerNormalization(epsilon=1e-6, name="feature_norm")(x)
    initial = linear_initializers("torch_default", x.shape[-1])
    initial["data_format"] = "channels_last"
    projection = layers.Conv2D(variant.hidden_width, 1, **initial, name=INPUT_PROJECTION)
    parts = {INPUT_PROJECTION: projection, **_new_parts(variant, settings.classes)}
    counts = variant.encoder_layers, variant.decoder_layers
    *_, objects = decoded(projection(x), parts, *counts)  # (B, h, w, C) -> (B, Q, C)
    return keras.Model(backbone.input, heads(objects, parts), name=settings.name)


def _new_parts(variant, classes):
    """The layers behind the backbone and the projection, by name."""
    width = variant.hidden_width
    sizes = (variant.hidden_heads, variant.feed_forward, variant.dropout)
    head = linear_initializers("torch_default", width)
    encoder = range(1, variant.encoder_layers + 1)
    decoder = range(1, variant.decoder_layers + 1)
    made = [
        layers.Reshape((-1, width), name="feature_tokens"),
        SinePositions(width, name="positions"),
        *(DetrEncoderLayer(*sizes, name=f"encoder_layer{number}") for number in encoder),
        layers.Add(name="memory_keys"),
        ObjectQueries(variant.queries, name="object_queries"),
        *(Fork(name=f"{name}_fork{number}") for number in decoder for name in _SHARED),
        *(DetrDecoderLayer(*sizes, name=f"decoder_layer{number}") for number in decoder),
        layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name="decoder_norm"),
        layers.Dense(classes + 1, **head, dtype="float32", name="class_head"),
        BoxHead(dtype="float32", name="box_head"),
    ]
    return {layer.name: layer for layer in made}


def decoded(feature_map, parts, encoder_layers, decoder_layers, padding=None):
    """The output of each decoder layer for a projected map (B, h, w, C): a list of (B, Q, C).

    `parts` are layers by name; `padding` (B, h, w) is true where a position is padding.
    """
    mask = () if padding is None else (padding,)
    positions = parts["positions"](feature_map, *mask)  # (B or 1, N, C)
    if padding is not None:
        mask = (layers.Reshape((-1,))(padding),)  # (B, h, w) -> (B, N)
    memory = parts["feature_tokens"](feature_map)  # (B, h, w, C) -> (B, N, C)
    for number in range(1, encoder_layers + 1):
        memory = parts[f"encoder_layer{number}"](memory, positions, *mask)
    keys = parts["memory_keys"]([memory, positions])
    objects, queries = parts["object_queries"](memory)  # (B, Q, C) each
    shared, after_layers = dict(zip(_SHARED, (queries, keys, memory), strict=True)), []
    for number in range(1, decoder_layers + 1):
        forked = {name: parts[f"{name}_fork{number}"](shared[name]) for name in _SHARED}
        shared = {name: rest for name, (_, rest) in forked.items()}
        used = (mine for mine, _ in forked.values())
        objects = parts[f"decoder_layer{number}"](objects, *used, *mask)
        after_layers.append(objects)
    return after_layers


def heads(objects, parts):
    """Classes and boxes of objects (..., C): {"logits": (..., classes + 1), "boxes": (..., 4)}."""
    objects = parts["decoder_norm"](objects)
    return {"logits": parts["class_head"](objects), "boxes": parts["box_head"](objects)}


def is_detector(model):
    """Whether a model is a detector of `create_model`, by its layers."""
    names = {layer.name for layer in model.layers} if isinstance(model, keras.Model) else set()
    return {INPUT_PROJECTION, "object_queries", "class_head", "box_head"} <= names


def _check_detector(model):
    if not is_detector(model):
        raise ValueError(f"{model.name} is not a detector such as detr_pit_s.")


def masked_detector(model):
    """The detector for training and for images padded to one size, of the same layers and weights.

    Encoder and decoder do not see padding; the backbone sees it as zeros, as in DETR. The model
    maps {"images": (B, H, W, 3), "padding_mask": bool (B, H, W), true where there is padding} to
    the outputs of each of the L decoder layers: {"logits": (B, L, Q, classes + 1), "boxes":
    (B, L, Q, 4)}. Boxes are shares of the image's sides without its padding.
    """
    check_functional(model, "masked_detector")
    _check_detector(model)
    parts = {layer.name: layer for layer in model.layers}
    counts = [
        sum(name.startswith(f"{part}_layer") for name in parts) for part in ("encoder", "decoder")
    ]
    feature_map = parts[INPUT_PROJECTION].output
    padding_mask = keras.Input(model.input_shape[1:3], dtype="bool", name="padding_mask")
    padding = FeaturePadding(name="feature_padding")(padding_mask, feature_map)
    objects = ops.stack(decoded(feature_map, parts, *counts, padding), axis=1)  # (B, L, Q, C)
    return keras.Model(
        {"images": model.input, "padding_mask": padding_mask},
        heads(objects, parts),
        name=f"{model.name}_masked",
    )


def backbone_layers(model):
    """The layers of a detector's backbone, which DETR trains with a smaller learning rate."""
    _check_detector(model)
    names = [layer.name for layer in model.layers]
    end = names.index("feature_norm" if "feature_norm" in names else INPUT_PROJECTION)
    return model.layers[:end]
