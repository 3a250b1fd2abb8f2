"""Rollout against a transcription with explicit matrices."""

import keras
import numpy as np
import pytest
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras import attention_maps, stage_features
from pit_keras.explain.rollout import Rollout, pooling_shares, token_centres
from pit_keras.models.attention import TransformerBlock
from pit_keras.models.pooling import TokenPooling

MODELS = {
    "pit_ti": {"depths": (1, 2, 1)},
    "pit_ti_distilled": {"depths": (2, 1, 1), "input_shape": (28, 36, 3)},
    "pit_ti dilated": {"depths": (1, 1, 1), "output_stride": 8},
    "pit_ti of any size": {"depths": (1, 1, 1), "input_shape": (None, None, 3)},
    "vit_ti": {"depth": 2},
    "vit_ti_distilled": {"depth": 3},
}


def small(case, **arguments):
    settings = {"patch_size": 4, "stride": 4, "head_dim": 8, "classes": 10, **MODELS[case]}
    settings = {"input_shape": (24, 32, 3), **settings, **arguments}
    model = pit_keras.create_model(case.split()[0], **settings)
    model.set_weights([3 * weight for weight in model.get_weights()])
    return model


def images(model, count=2):
    size = [side or default for side, default in zip(model.input_shape[1:3], (24, 20), strict=True)]
    return np.random.default_rng(0).normal(size=(count, *size, 3)).astype("float32")


def mixing_matrix(attention):
    """Mean over heads (heads, N, N), plus the identity, each row divided by its sum."""
    matrix = attention.astype("float64").mean(axis=0) + np.eye(attention.shape[-1])
    return matrix / matrix.sum(axis=1, keepdims=True)


def pooling_matrix(kernel, grid, pooled, stride, dilation, num_tokens):
    """Tap by tap: (T + h' * w', T + h * w), rows that sum to 1."""
    matrix = np.zeros((num_tokens + np.prod(pooled), num_tokens + np.prod(grid)))
    for token in range(num_tokens):
        matrix[token, token] = 1
    for row, column in np.ndindex(*pooled):
        place = num_tokens + row * pooled[1] + column
        for i, j in np.ndindex(3, 3):
            y, x = stride * row + dilation * (i - 1), stride * column + dilation * (j - 1)
            if 0 <= y < grid[0] and 0 <= x < grid[1]:
                weight = np.mean([abs(value) for value in kernel[i, j].flat])
                matrix[place, num_tokens + y * grid[1] + x] = weight
        matrix[place] /= matrix[place].sum()
    return matrix


def transcribed(model, pixels, num_tokens):
    """From the product of all matrices between a stage's input and the end, the class tokens' row.

    Returns, for each stage, the map of one image and the class tokens' own share.
    """
    maps = [np.asarray(x)[0] for x in _listed(attention_maps(model)(pixels))]
    grids = [x.shape[1:3] for x in _listed(stage_features(model)(pixels))]
    found = []
    for stage in range(1, len(grids) + 1):
        product, at, left = None, 1, list(maps)
        for layer in model.layers:
            if isinstance(layer, TransformerBlock):
                matrix = mixing_matrix(left.pop(0))
            elif isinstance(layer, TokenPooling):
                kernel = np.asarray(layer.depthwise_conv.kernel)
                matrix = pooling_matrix(
                    kernel, grids[at - 1], grids[at], layer.stride, layer.dilation, num_tokens
                )
                at += 1
                if at == stage:
                    continue  # it leads to the stage's input
            else:
                continue
            if at >= stage:
                product = matrix if product is None else matrix @ product
        shares = product[:num_tokens].mean(axis=0)
        found.append((shares[num_tokens:].reshape(grids[stage - 1]), shares[:num_tokens].sum()))
    return found


def _listed(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


# One network for each behaviour: two class tokens, a dilated pooling, any size, no pooling.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow)
        if case in ("pit_ti", "vit_ti_distilled")
        else case
        for case in MODELS
    ],
)
def test_rollout_is_the_product_of_its_matrices(case):
    model = small(case)
    pixels = images(model)

    stages = Rollout(model)(pixels)

    # Attention scores multiply two tensors of kernels that are three times as large as usual, and
    # a rollout multiplies by a matrix of all tokens in each block.
    blocks = sum(isinstance(layer, TransformerBlock) for layer in model.layers)
    terms = terms_along(small(case, input_shape=pixels.shape[1:]))
    roundings = 9 * terms + blocks * (6 * 8 + 2)
    for image in range(2):
        expected = transcribed(model, pixels[image : image + 1], 2 if "distilled" in case else 1)
        assert len(stages) == len(expected) == (1 if case.startswith("vit") else 3)
        for shares, (of_places, of_tokens) in zip(stages, expected, strict=True):
            assert shares.shape[1:] == of_places.shape
            assert_close(shares[image], of_places, roundings=roundings)
            assert_close(shares[image].sum() + of_tokens, 1, roundings=roundings)
            assert of_places.std() > 0.05 * of_places.mean()


def test_uniform_attention_leaves_what_the_residual_branches_keep():
    """Each of L blocks keeps half; the rest is the same for all tokens."""
    model = small("vit_ti")
    for block in (layer for layer in model.layers if isinstance(layer, TransformerBlock)):
        block.attention.qkv.set_weights([0 * x for x in block.attention.qkv.get_weights()])

    (shares,) = Rollout(model)(images(model))

    # Two matrices of all tokens are multiplied.
    assert_close(shares, np.full((2, 6, 8), (1 - 0.5**2) / 49), roundings=2 * 49)


def built_pooling(stride, dilation, kernel):
    pooling = TokenPooling(2, stride, dilation)
    pooling.build([(None, 1, 4), (None, None, None, 4)])
    pooling.depthwise_conv.kernel.assign(np.broadcast_to(kernel, (3, 3, 4, 2)))
    return pooling


# Taps of weight 0 count as Keras' epsilon, and there are eight around the centre.
OTHER_TAPS = 8 * keras.backend.epsilon()


def centre_only():
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[1, 1] = -2
    return kernel


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_kernel_of_its_centre_alone_moves_nothing(dilation):
    shares = pooling_shares(built_pooling(1, dilation, centre_only()), (4, 5))
    np.testing.assert_allclose(shares, np.eye(20), rtol=0, atol=OTHER_TAPS)


@pytest.mark.parametrize("grid", [(4, 5), (7, 7), (2, 3)])
def test_with_stride_two_it_takes_every_second_token(grid):
    shares = pooling_shares(built_pooling(2, 1, centre_only()), grid)
    kept = np.arange(np.prod(grid)).reshape(grid)[::2, ::2].ravel()
    np.testing.assert_allclose(shares, np.eye(np.prod(grid))[kept], rtol=0, atol=OTHER_TAPS)


def test_a_kernel_of_zeros_shares_equally_among_the_taps_inside():
    shares = pooling_shares(built_pooling(2, 1, np.zeros((3, 3, 1, 1))), (3, 3))
    quarter = [[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]]
    np.testing.assert_allclose(shares[0].reshape(3, 3), quarter)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "arguments", "centres"),
    [
        ("pit_s", {}, (7.5, [8, 16, 32])),
        ("pit_b", {}, (6.5, [7, 14, 28])),
        ("pit_s", {"output_stride": 16}, (7.5, [8, 16, 16])),
        ("vit_s", {}, (7.5, [16])),
    ],
)
def test_tokens_lie_where_their_patches_are_centred(name, arguments, centres):
    depth = {"depth": 1} if name == "vit_s" else {"depths": (1, 1, 1)}
    model = pit_keras.create_model(name, head_dim=8, **depth, **arguments)
    assert token_centres(model) == centres


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="resnet50 has no transformer blocks and so no attention"):
        Rollout(pit_keras.create_model("resnet50", base_width=4, input_shape=(32, 32, 3)))
