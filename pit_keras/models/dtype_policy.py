"""A model in another precision: the same weights, computed with another dtype policy."""

import keras


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
