"""How a model is traced: for XLA or not, its blocks' activations kept or computed again.

Neither changes what a model computes, so whoever compiles it or takes its gradient chooses.
"""

import contextlib
import contextvars

import keras
from keras import ops

# XLA's CPU gradient of a depth-wise convolution is hundreds of times slower than the same sum
# written as nine strided slices; without XLA the slices are ten times slower than the convolution.
# No backend says whether a layer is being compiled. JAX always compiles.
_compiled_by_xla = contextvars.ContextVar(
    "compiled_by_xla", default=keras.backend.backend() == "jax"
)
_recomputes_blocks = contextvars.ContextVar("recomputes_blocks", default=False)


@contextlib.contextmanager
def _set(variable, value):
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def tracing_for_xla(compiled=True):
    """Within it, layers choose the form that XLA compiles well, or not. The numbers are the same.

    Enter it inside the function that is compiled:

        @tf.function(jit_compile=True)
        def step(images):
            with tracing_for_xla():
                return model(images)
    """
    return _set(_compiled_by_xla, compiled)


def compiled_by_xla():
    """Whether `tracing_for_xla` says so, or the backend."""
    return _compiled_by_xla.get()


@contextlib.contextmanager
def recomputing_blocks(recompute=True):
    """Within it, a block called with `training=True` keeps only its input for the gradient.

    The gradient computes the block again, with the same dropout (gradient checkpointing, Chen et
    al., arXiv 1604.06174): the same gradients with less memory and more time. XLA may keep the
    masks of dropout.

    Enter it like `tracing_for_xla`, inside the function that each replica runs. A
    `keras.StatelessScope` around it may hold the states of seed generators, but not the weights.
    """
    if recompute and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Blocks are recomputed on TensorFlow only; Keras runs on {keras.backend.backend()!r}."
        )
    with _set(_recomputes_blocks, recompute):
        yield


def recomputes_blocks():
    """Whether `recomputing_blocks` says so."""
    return _recomputes_blocks.get()


def recomputed(function, inputs, states):
    """`function(inputs)`, whose gradient computes it again instead of keeping its activations.

    `states` are those of the seed generators that the function draws from; they advance once.
    """
    # The second call happens when the gradient is taken, outside of all scopes and after the states
    # have moved on. So they are read here, once, and both calls start from what was read.
    before = [(state, ops.copy(state.value)) for state in states]
    scopes = []

    def replayed(x):
        scope = keras.StatelessScope(state_mapping=before, initialize_variables=False)
        scopes.append(scope)
        with scope:
            return function(x)

    outputs = keras.remat(replayed)(inputs)
    for state in states:
        state.assign(scopes[0].get_current_value(state))
    return outputs
