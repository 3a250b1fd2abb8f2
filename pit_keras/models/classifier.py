"""The classifier on class tokens, and the two-headed model that distillation trains."""

import keras
from keras import layers

from pit_keras.models.initializers import linear_initializers


def class_token_classifier(tokens, settings, initialization):
    """Class tokens (B, T, C) -> logits (B, classes), in float32 whatever the precision.

    With a distillation token the result is the mean of the heads `head` and `head_dist`. Without
    the top it is the class token's features (B, C), or the mean of both tokens'.
    """
    names = ("head", "head_dist")[: settings.num_tokens]
    outputs = [tokens[:, token] for token in range(settings.num_tokens)]  # each (B, C)
    if settings.include_top:
        outputs = [
            layers.Dense(
                settings.classes,
                **linear_initializers(initialization, tokens.shape[-1]),
                dtype="float32",
                name=name,
            )(token)
            for name, token in zip(names, outputs, strict=True)
        ]
    output = outputs[0] if len(outputs) == 1 else layers.Average(dtype="float32")(outputs)
    if settings.include_top and settings.classifier_activation is not None:
        activation = settings.classifier_activation
        output = layers.Activation(activation, dtype="float32", name="predictions")(output)
    return output


def two_headed(model):
    """The model that distillation trains: images -> [logits of `head`, logits of `head_dist`].

    It shares all layers and weights with the given model, whose own output is the heads' mean.

    Raises:
        ValueError: If the model was not built with a distillation token.
    """
    names = {layer.name for layer in model.layers}
    if not {"head", "head_dist"} <= names:
        raise ValueError(
            f"{model.name} has no layers 'head' and 'head_dist'; distillation needs a model whose "
            "name ends in '_distilled', with its top."
        )
    heads = [model.get_layer(name).output for name in ("head", "head_dist")]
    return keras.Model(model.input, heads, name=f"{model.name}_two_headed")


def stage_features(model):
    """The feature extractor of a PiT or ViT: images -> one map (B, h, w, C) for each stage.

    For PiT these are three maps, 27, 14 and 7 wide at 224 (PiT-B: 31, 16, 8), not normalised. It
    shares all layers and weights with the given model.

    Raises:
        ValueError: If the model has no layer `stage1`.
    """
    names = [layer.name for layer in model.layers]
    stages = [name for name in names if name.startswith("stage") and name[5:].isdigit()]
    if not stages:
        raise ValueError(f"{model.name} has no layers 'stage1', 'stage2', ...: not a PiT or ViT.")
    maps = [model.get_layer(name).output[1] for name in stages]
    return keras.Model(model.input, maps, name=f"{model.name}_features")
