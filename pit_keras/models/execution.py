"""How a model is traced: for XLA or not, its blocks' activations kept or computed again.

Neither changes what a model computes.
"""

import contextlib
import contextvars
import sys

import keras
from keras import ops

_recomputes_blocks = contextvars.ContextVar("recomputes_blocks", default=False)


def compiled_by_xla():
    """Whether XLA compiles what is being traced; JAX always compiles.

    Token pooling asks. XLA's CPU gradient of a depth-wise convolution is hundreds of times slower
    than the same sum written as nine strided slices; without XLA the slices are ten times slower.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend() == "jax"
    # A function with jit_compile=True enters a context in the graph that calls it.
    graph = sys.modules["tensorflow"].compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        if context is not None and context.IsXLAContext():
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


@contextlib.contextmanager
def recomputing_blocks(recompute=True):
    """Within it, a block called with `training=True` keeps only its input for the gradient.

    The gradient computes the block again, with the same dropout (gradient checkpointing, Chen et
    al., arXiv 1604.06174): the same gradients with less memory and more time. XLA may keep the
    masks of dropout.

    Enter it inside the function that each replica runs. A
    `keras.StatelessScope` around it may hold the states of seed generators, but not the weights.
    """
    if recompute and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Blocks are recomputed on TensorFlow only; Keras runs on {keras.backend.backend()!r}."
        )
    token = _recomputes_blocks.set(recompute)
    try:
        yield
    finally:
        _recomputes_blocks.reset(token)


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
