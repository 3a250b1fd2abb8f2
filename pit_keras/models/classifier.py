"""The classifier on class tokens, and the two-headed model that distillation trains."""

import keras
from keras import layers

from pit_keras.models.attention import LAYER_NORM_EPSILON
from pit_keras.models.initializers import linear
from pit_keras.models.serialization import registered


@registered
class TakeToken(layers.Layer):
    """One of the class tokens, (B, T, C) -> (B, C)."""

    def __init__(self, token=0, **kwargs):
        super().__init__(**kwargs)
        self.token = token

    def call(self, tokens):
        return tokens[:, self.token]


def class_token_classifier(tokens, settings, initialization):
    """Class tokens (B, T, C) -> logits (B, classes), in float32 in any precision.

    With a distillation token they are the mean of the heads `head` and `head_dist`, which read the
    layers `pre_logits` and `pre_logits_dist`. Without the top the result is the normalised class
    token (B, C), or the mean of both tokens.
    """
    tokens = layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name="norm")(tokens)
    names = ("pre_logits", "pre_logits_dist")[: settings.num_tokens]
    outputs = [TakeToken(token, name=name)(tokens) for token, name in enumerate(names)]  # (B, C)
    if settings.include_top:
        sizes = tokens.shape[-1], settings.classes
        outputs = [
            linear(name, *sizes, "float32", initialization)(token)
            for name, token in zip(("head", "head_dist"), outputs, strict=False)
        ]
    output = outputs[0] if len(outputs) == 1 else layers.Average(dtype="float32")(outputs)
    return classifier_activation(output, settings)


def classifier_activation(logits, settings):
    """Logits after the activation that `create_model` was asked for, if any."""
    if settings.classifier_activation is None:
        return logits
    activation = settings.classifier_activation
    return layers.Activation(activation, dtype="float32", name="predictions")(logits)


def check_functional(model, reader):
    """Raises ValueError, naming the function `reader`, for all but a model with a graph to read."""
    if not isinstance(model, keras.Model) or getattr(model, "outputs", None) is None:
        given = type(model).__name__ if isinstance(model, keras.Model) else repr(model)
        raise ValueError(
            f"{reader} reads functional models, such as those of create_model; got {given}."
        )


def two_headed(model: keras.Model) -> keras.Model:
    """The model that distillation trains: images -> [logits of `head`, logits of `head_dist`].

    It shares all layers and weights with the given model, whose own output is the heads' mean.
    """
    check_functional(model, "two_headed")
    named = {layer.name: layer for layer in model.layers}
    if not {"head", "head_dist"} <= set(named):
        raise ValueError(
            f"{model.name} has no layers 'head' and 'head_dist'; create a '_distilled' model with "
            "its top."
        )
    heads = [named[name].output for name in ("head", "head_dist")]
    return keras.Model(model.input, heads, name=f"{model.name}_two_headed")
