"""Regenerates detr.npz: what DETR's encoder, decoder and heads make of fixed feature maps on fixed
weights, in the implementation of Hugging Face's transformers (tests/models/test_detr_parity.py).

pip install torch transformers
python tests/golden/make_detr.py

Its decoder layers are called one after the other. Its own loop over them, when it is to return what
each of them finds, gives a layer the normalised output of the one before, which is not what DETR's
authors published (github.com/facebookresearch/detr, models/transformer.py).
"""

import pathlib
import re

import numpy as np
import torch
from fixed_weights import fixed_feature_maps, fixed_padding, fixed_state_dict
from transformers import DetrConfig, ResNetConfig
from transformers.models.detr.modeling_detr import DetrForObjectDetection

OUTPUT = pathlib.Path(__file__).with_name("detr.npz")
SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 7,
    "num_labels": 5,
}
CHANNELS = 24
# The names of DETR's authors, and what Hugging Face calls them.
NAMES = (
    (r"transformer\.(encoder|decoder)\.layers\.", r"model.\1.layers."),
    (r"transformer\.decoder\.norm", "model.decoder.layernorm"),
    (r"multihead_attn", "encoder_attn"),
    (r"out_proj", "o_proj"),
    (r"linear(\d)", r"mlp.fc\1"),
    (r"(.*decoder\.layers\.\d+\.)norm2", r"\1encoder_attn_layer_norm"),
    (r"norm1", "self_attn_layer_norm"),
    (r"\.norm[23]", ".final_layer_norm"),
    (r"query_embed", "model.query_position_embeddings"),
    (r"input_proj", "model.input_projection"),
    (r"class_embed", "class_labels_classifier"),
    (r"bbox_embed", "bbox_predictor"),
)


def main():
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[CHANNELS], depths=[1], out_features=["stage1"]
    )
    config = DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        attn_implementation="eager",
        **SIZES,
    )
    detector = DetrForObjectDetection(config).eval()
    state = fixed_state_dict(shapes(detector))
    load(detector, state)
    lines = [f"{key} {' '.join(map(str, value.shape))}" for key, value in state.items()]
    arrays = {"keys": np.array(lines)}
    with torch.no_grad():
        arrays |= outputs(detector, fixed_feature_maps(CHANNELS), fixed_padding())
    np.savez_compressed(OUTPUT, **arrays)
    print({name: value.shape for name, value in arrays.items()})


def shapes(detector):
    """Names and shapes of the authors' state dict, which has three projections in one tensor."""
    width, hidden = SIZES["d_model"], SIZES["encoder_ffn_dim"]
    found = {
        "input_proj.weight": (width, CHANNELS, 1, 1),
        "input_proj.bias": (width,),
        "query_embed.weight": (SIZES["num_queries"], width),
        "class_embed.weight": (SIZES["num_labels"] + 1, width),
        "class_embed.bias": (SIZES["num_labels"] + 1,),
        "transformer.decoder.norm.weight": (width,),
        "transformer.decoder.norm.bias": (width,),
    }
    for number, outputs in enumerate((width, width, 4)):
        found[f"bbox_embed.layers.{number}.weight"] = (outputs, width)
        found[f"bbox_embed.layers.{number}.bias"] = (outputs,)
    for kind, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "multihead_attn"]),
    ):
        for layer in range(SIZES[f"{kind}_layers"]):
            prefix = f"transformer.{kind}.layers.{layer}."
            for attention in attentions:
                found[f"{prefix}{attention}.in_proj_weight"] = (3 * width, width)
                found[f"{prefix}{attention}.in_proj_bias"] = (3 * width,)
                found[f"{prefix}{attention}.out_proj.weight"] = (width, width)
                found[f"{prefix}{attention}.out_proj.bias"] = (width,)
            for name, (outputs, inputs) in (("1", (hidden, width)), ("2", (width, hidden))):
                found[f"{prefix}linear{name}.weight"] = (outputs, inputs)
                found[f"{prefix}linear{name}.bias"] = (outputs,)
            for norm in range(1, len(attentions) + 2):
                found[f"{prefix}norm{norm}.weight"] = found[f"{prefix}norm{norm}.bias"] = (width,)
    return found


def load(detector, state):
    """Puts the authors' tensors where Hugging Face has them, all of them but the backbone's."""
    renamed = {}
    for key, value in state.items():
        for pattern, name in NAMES:
            key = re.sub(pattern, name, key)
        tensor = torch.from_numpy(value)
        if "in_proj_" not in key:
            renamed[key] = tensor
            continue
        for part, third in zip("qkv", torch.chunk(tensor, 3), strict=True):
            renamed[key.replace("in_proj_", f"{part}_proj.")] = third
    missing, unexpected = detector.load_state_dict(renamed, strict=False)
    missing = [key for key in missing if not key.startswith("model.backbone.")]
    if missing or unexpected:
        raise SystemExit(f"error: missing {missing}, unexpected {unexpected}.")


def outputs(detector, feature_maps, padding):
    """What each decoder layer finds: logits (B, L, Q, classes + 1) and boxes (B, L, Q, 4)."""
    model = detector.model
    inside = torch.from_numpy(~padding)
    projected = model.input_projection(torch.from_numpy(feature_maps).permute(0, 3, 1, 2))
    positions = model.position_embedding(
        shape=projected.shape, device="cpu", dtype=torch.float32, mask=inside
    )
    positions = positions.flatten(2).permute(0, 2, 1)
    tokens = projected.flatten(2).permute(0, 2, 1)
    mask = torch.zeros(inside.shape).masked_fill(~inside, -1e9).flatten(1)[:, None, None]
    for layer in model.encoder.layers:
        tokens = layer(tokens, mask, spatial_position_embeddings=positions)
    queries = model.query_position_embeddings.weight[None].repeat(len(tokens), 1, 1)
    objects, logits, boxes = torch.zeros_like(queries), [], []
    for layer in model.decoder.layers:
        objects = layer(
            objects,
            None,
            positions,
            queries,
            tokens,
            encoder_attention_mask=mask,
        )
        found = model.decoder.layernorm(objects)
        logits.append(detector.class_labels_classifier(found))
        boxes.append(detector.bbox_predictor(found).sigmoid())
    return {
        "positions": positions.numpy(),
        "memory": tokens.numpy(),
        "logits": torch.stack(logits, dim=1).numpy(),
        "boxes": torch.stack(boxes, dim=1).numpy(),
    }


if __name__ == "__main__":
    main()
