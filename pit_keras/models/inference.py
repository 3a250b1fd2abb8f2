"""The same weights in a model of less work or of another precision."""

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


def with_dtype_policy(model, policy):
    """A functional model that computes under another dtype policy; itself if it does already.

    Weights stay float32; only the casts at their use change. The classifier, `head` and what
    follows it or else the last layer, stays in float32, as in every model of `create_model`.
    """
    names = [layer.name for layer in model.layers]
    classifier = names[names.index("head") if "head" in names else -1 :]
    policies = {name: "float32" if name in classifier else policy for name in names}
    # The input has no computation of its own.
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if all(layer.dtype_policy.name == policies[layer.name] for layer in layers):
        return model

    def clone(operation):
        config = operation.get_config()
        if isinstance(operation, keras.layers.Layer):  # operations such as slices have no policy
            config["dtype"] = policies[operation.name]
        return operation.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy
