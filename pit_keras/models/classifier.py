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


def check_functional(model, reader):
    """Raises ValueError, naming the function `reader`, for all but a model with a graph to read."""
    if not isinstance(model, keras.Model) or getattr(model, "outputs", None) is None:
        raise ValueError(
            f"{reader} reads functional models, such as those of create_model; got "
            f"{type(model).__name__ if isinstance(model, keras.Model) else repr(model)}."
        )


def two_headed(model):
    """The model that distillation trains: images -> [logits of `head`, logits of `head_dist`].

    It shares all layers and weights with the given model, whose own output is the heads' mean.

    Raises:
        ValueError: If the model is not functional, or was not built with a distillation token.
    """
    check_functional(model, "two_headed")
    names = {layer.name for layer in model.layers}
    if not {"head", "head_dist"} <= names:
        raise ValueError(
            f"{model.name} has no layers 'head' and 'head_dist'; distillation needs a model whose "
            "name ends in '_distilled', with its top."
        )
    heads = [model.get_layer(name).output for name in ("head", "head_dist")]
    return keras.Model(model.input, heads, name=f"{model.name}_two_headed")
