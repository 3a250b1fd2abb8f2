"""The same logits with less work, for inference."""

import keras

from pit_keras.models.attention import BlockView, TransformerBlock
from pit_keras.models.classifier import check_functional


def logits_only(model):
    """A model of the same weights and outputs whose last block computes only what is read.

    The classifier of PiT and ViT reads class tokens alone; the last block needs no more than keys
    and values of the others. That saves 5% of PiT-S's multiplications, and the last stage's feature
    map. Other models are returned as they are.
    """
    check_functional(model, "logits_only")
    blocks = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    if not blocks:
        return model
    class_tokens = model.get_layer("norm").input  # (B, T, C)
    classifier = keras.Model(class_tokens, model.output, name="classifier")
    count, last = class_tokens.shape[1], blocks[-1]
    view = BlockView(last, lambda block, inputs: block.first_tokens(inputs, count), last.name)
    return keras.Model(model.input, classifier(view(last.input)), name=model.name)
