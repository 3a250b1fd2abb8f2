"""AdamP against the authors' PyTorch optimizer, live, on random tensors and gradients.

In float64; a learning rate is float32 in Keras, so it is one that both can hold.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from adamp import AdamP as ReferenceAdamP

from pit_keras.optimizers import AdamP

# Path: PyTorch's shape, the shape to reshape it to, the axes to transpose that to Keras' layout.
TENSORS = {
    "conv/kernel": ((7, 5, 3, 3), (7, 5, 3, 3), (2, 3, 1, 0)),
    "pool_dwconv/kernel": ((10, 1, 3, 3), (5, 2, 3, 3), (2, 3, 0, 1)),
    "dense/kernel": ((6, 11), (6, 11), (1, 0)),
    "dense/bias": ((6,), (6,), (0,)),
    "patches/position_embedding": ((1, 5, 4, 3), (1, 5, 4, 3), (0, 2, 3, 1)),
    "patches/class_tokens": ((1, 2, 5), (1, 2, 5), (0, 1, 2)),
}


def to_keras(path, array):
    _, shape, axes = TENSORS[path]
    return array.reshape(shape).transpose(axes)


def make_variable(path, value):
    layer, name = path.split("/")
    with keras.name_scope(layer):
        return keras.Variable(to_keras(path, value), name=name, dtype="float64")


def random_gradient(rng, weight):
    """A gradient: any, or orthogonal to the weight row by row, or orthogonal only as a whole."""
    gradient = rng.normal(size=weight.shape)
    kind = rng.integers(3)
    if weight.ndim > 1 and kind > 0:
        rows = (len(weight), -1) if kind == 1 else (1, -1)
        weight, gradient = weight.reshape(rows), gradient.reshape(rows)
        share = (gradient * weight).sum(1) / (weight * weight).sum(1)
        gradient = gradient - share[:, None] * weight
    return gradient


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_follows_the_reference(seed, nesterov):
    rng = np.random.default_rng(seed)
    settings = {"weight_decay": 0.1, "delta": 0.3, "wd_ratio": 0.2, "nesterov": nesterov}
    start = {path: rng.normal(size=shape) for path, (shape, *_) in TENSORS.items()}
    parameters = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in start.items()}
    reference = ReferenceAdamP(
        parameters.values(), lr=2.0**-6, betas=(0.8, 0.99), eps=1e-3, **settings
    )
    variables = [make_variable(path, value) for path, value in start.items()]
    optimizer = AdamP(learning_rate=2.0**-6, beta_1=0.8, beta_2=0.99, epsilon=1e-3, **settings)

    for _ in range(20):
        gradients = []
        for path, parameter in parameters.items():
            gradient = random_gradient(rng, parameter.detach().numpy()).reshape(parameter.shape)
            parameter.grad = torch.tensor(gradient)
            gradients.append(tf.constant(to_keras(path, gradient)))
        reference.step()
        optimizer.apply(gradients, variables)

    for variable, (path, parameter) in zip(variables, parameters.items(), strict=True):
        expected = to_keras(path, parameter.detach().numpy())
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-9, atol=1e-12, err_msg=path)
