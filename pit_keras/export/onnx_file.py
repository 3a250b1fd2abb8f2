"""ONNX: one file for ONNX Runtime, OpenVINO and others that read this format."""

import re

import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import normalise
from pit_keras.export import sidecars
from pit_keras.models.inference import logits_only

OPSET = 18  # of ONNX 1.13; the newest that tf2onnx writes


def export_onnx(trained, path):
    """Writes a float32 ONNX file that takes images of the model's own size.

    It maps `images`, uint8 (B, H, W, 3) for any B, to `logits`, float32 (B, classes). The
    normalisation is inside; resizing and cropping are not. The file's `metadata_props` hold the
    class names, one a line in the order of the logits, as `classes.txt`, and the whole of the
    preprocessing as `preprocessing.json`. `trained` is a `TrainedModel` in float32.
    """
    import onnx
    import tf2onnx

    data, network = trained.data, logits_only(trained.model)

    @tf.function(autograph=False)
    def classify(images):
        images = normalise(images, data.mean, data.std)
        return {"logits": network(images, training=False)}

    converted, _ = tf2onnx.convert.from_function(
        classify,
        input_signature=[tf.TensorSpec((None, *data.image_size, 3), tf.uint8, name="images")],
        opset=OPSET,
    )
    model = fused(converted)
    model.graph.name, model.graph.doc_string = trained.model.name, ""
    _name_by_order(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, sidecars.texts(trained))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def run_onnx(path, images):
    """Logits (N, classes) of an ONNX file for uint8 images (H, W, 3) of the model's own size."""
    return np.concatenate(list(map(load_onnx(path), images)))


def load_onnx(path, threads=1):
    """A function of one uint8 image (H, W, 3) of the model's own size: its logits (1, classes)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"images": image[np.newaxis]})[0]


def _name_by_order(graph):
    """Gives the same names each time: tf2onnx counts names through the life of a process."""
    names = {"": ""}  # an input that is left out
    names |= {value.name: value.name for value in (*graph.input, *graph.output)}
    for index, node in enumerate(graph.node):
        scope = re.sub(r"(_+\d+)?(:\d+)?(?=/|$)", "", node.output[0])
        node.name = f"{scope}_{index}"
        for position, name in enumerate(node.input):
            node.input[position] = names.setdefault(name, f"constant_{len(names)}")
        for position, name in enumerate(node.output):
            node.output[position] = names.setdefault(name, f"{node.name}:{position}")
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    graph.initializer.sort(key=lambda tensor: int(tensor.name.rpartition("_")[2]))
    del graph.value_info[:]  # runtimes infer these shapes themselves


def fused(model):
    """The same `onnx.ModelProto`, with the LayerNormalization and GELU that runtimes know."""
    from onnxscript import rewriter

    rules = [
        rewriter.pattern.RewriteRule(_normalisation, _layer_normalization, _has_constants),
        rewriter.pattern.RewriteRule(_gelu_halved_first, _gelu),
    ]
    return rewriter.rewrite(model, pattern_rewrite_rules=rules)


def _normalisation(op, x, gamma, beta, epsilon):
    from onnxscript.rewriter.pattern import OrValue

    mean = op.ReduceMean(x, [-1], keepdims=1, _allow_other_attributes=True)
    centred = op.Sub(x, mean)
    square = op.Mul(centred, centred)
    variance = op.ReduceMean(square, [-1], keepdims=1, _allow_other_attributes=True)
    scale = op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))), gamma)
    shift = op.Mul(op.Neg(mean), scale)
    # TensorFlow leaves out a beta of zeros, as before training.
    return op.Add(op.Mul(x, scale), OrValue([op.Add(shift, beta), shift]))


def _has_constants(context, gamma, epsilon, beta=None, **_):
    channels = _constant(gamma)
    return (
        channels is not None
        and channels.size == channels.shape[-1]
        and (beta is None or np.shape(_constant(beta)) == channels.shape)
        and np.size(_constant(epsilon)) == 1
    )


def _layer_normalization(op, x, gamma, epsilon, beta=None):
    import onnx_ir

    gamma = _constant(gamma).reshape(-1)
    beta = np.zeros_like(gamma) if beta is None else _constant(beta).reshape(-1)
    scale = op.initializer(onnx_ir.tensor(gamma), name=f"{x.name}_gamma")
    bias = op.initializer(onnx_ir.tensor(beta), name=f"{x.name}_beta")
    return op.LayerNormalization(x, scale, bias, axis=-1, epsilon=float(_constant(epsilon).item()))


def _gelu_halved_first(op, x):
    """x / 2 * (1 + erf(x * sqrt(1 / 2))), as `attention.gelu` computes it."""
    return op.Mul(op.Mul(0.5, x), op.Add(1.0, op.Erf(op.Mul(x, 0.5**0.5))))


def _gelu(op, x):
    """The form that ONNX Runtime makes one operation of: it looks for a division."""
    half, one, root = (op.Constant(value_float=value) for value in (0.5, 1.0, 2**0.5))
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)


def _constant(value):
    """The array of a value of the graph; None if it is computed."""
    return None if value.const_value is None else value.const_value.numpy()
