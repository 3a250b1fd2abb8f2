"""The same logits with less work, for inference."""

import keras
from keras import layers

from pit_keras.models.attention import TransformerBlock
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
    last = FirstTokens(blocks[-1], class_tokens.shape[1])
    return keras.Model(model.input, classifier(last(blocks[-1].input)), name=model.name)


class FirstTokens(layers.Layer):
    """A `TransformerBlock` that gives its first tokens alone, (B, N, C) -> (B, count, C)."""

    def __init__(self, block, count):
        super().__init__(name=block.name, dtype=block.dtype_policy)
        self.block = block
        self.count = count

    def call(self, inputs):
        return self.block.first_tokens(inputs, self.count)

    def compute_output_shape(self, input_shape):
        batch, _, channels = input_shape
        return batch, self.count, channels
