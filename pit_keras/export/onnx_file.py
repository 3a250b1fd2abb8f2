"""ONNX: one file for ONNX Runtime, OpenVINO and others that read this format."""

import importlib
import re

import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import normalise
from pit_keras.export import sidecars
from pit_keras.export.agreement import CALLS, median_milliseconds
from pit_keras.models.inference import logits_only

OPSET = 18  # of ONNX 1.13; the newest that tf2onnx writes


def export_onnx(trained, path):
    """Writes a float32 ONNX file that takes images of the model's own size.

    It maps `images`, uint8 (B, H, W, 3) for any B, to `logits`, float32 (B, classes). The
    normalisation is inside; resizing and cropping are not. The file's `metadata_props` hold the
    class names, one a line in the order of the logits, as `classes.txt`, and the whole of the
    preprocessing as `preprocessing.json`. `trained` is a `TrainedModel` in float32.
    """
    metadata = {
        sidecars.CLASSES_FILE: sidecars.class_names_text(trained.class_names),
        sidecars.PREPROCESSING_FILE: sidecars.preprocessing_text(trained.data),
    }
    onnx = _package("onnx")
    model = fused(_convert(trained))
    model.graph.name, model.graph.doc_string = trained.model.name, ""
    _name_by_order(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def run_onnx(path, images, threads=1):
    """Logits (N, classes) of an ONNX file for uint8 images (H, W, 3) of the model's own size."""
    classify = _classifier(path, threads)
    return np.concatenate([classify(image[np.newaxis]) for image in images])


def onnx_latency(path, image, threads=1, calls=CALLS):
    """Median milliseconds of a call with one uint8 image (H, W, 3) of the model's own size."""
    classify, batch = _classifier(path, threads), image[np.newaxis]
    return median_milliseconds(lambda: classify(batch), calls)


def _classifier(path, threads):
    """A function: uint8 images (B, H, W, 3) to logits (B, classes)."""
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def _convert(trained):
    """The `onnx.ModelProto` by tf2onnx, normalisation included."""
    data, model = trained.data, logits_only(trained.model)

    @tf.function(autograph=False)
    def classify(images):
        images = normalise(images, data.mean, data.std)
        return {"logits": model(images, training=False)}

    converted, _ = _package("tf2onnx").convert.from_function(
        classify,
        input_signature=[tf.TensorSpec((None, *data.image_size, 3), tf.uint8, name="images")],
        opset=OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    return converted


def _erfc(context, node, *_):
    """Writes erfc(x) as 1 - erf(x): ONNX has no operation for it."""
    node.type = "Erf"
    (output,) = node.output
    one = context.make_const(f"{node.name}_one", np.float32(1)).output[0]
    context.insert_new_node_on_output(
        "Sub", output, inputs=[one, output], name=f"{node.name}_complement"
    )


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
    rewriter = _package("onnxscript.rewriter")
    replacements = (
        (_normalisation, _layer_normalization, _has_constants),
        (_centred_normalisation, _layer_normalization, _has_constants),
        (_gelu_by_complement, _gelu, _is_gelu),
    )
    rules = [rewriter.pattern.RewriteRule(*replacement) for replacement in replacements]
    return rewriter.rewrite(model, pattern_rewrite_rules=rules)


def _normalisation(op, x, gamma, beta, epsilon, axes):
    mean, scale = _mean_and_scale(op, x, gamma, epsilon, axes)
    return op.Add(op.Mul(x, scale), op.Add(op.Mul(op.Neg(mean), scale), beta))


def _centred_normalisation(op, x, gamma, epsilon, axes):
    """With a beta of zeros, as before training, which TensorFlow leaves out."""
    mean, scale = _mean_and_scale(op, x, gamma, epsilon, axes)
    return op.Add(op.Mul(x, scale), op.Mul(op.Neg(mean), scale))


def _mean_and_scale(op, x, gamma, epsilon, axes):
    mean = op.ReduceMean(x, axes, keepdims=1, _allow_other_attributes=True)
    centred = op.Sub(x, mean)
    square = op.Mul(centred, centred)
    variance = op.ReduceMean(square, axes, keepdims=1, _allow_other_attributes=True)
    return mean, op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))), gamma)


def _has_constants(context, gamma, epsilon, axes, beta=None, **_):
    channels = _constant(gamma)
    return (
        channels is not None
        and channels.size == channels.shape[-1]
        and (beta is None or np.shape(_constant(beta)) == channels.shape)
        and np.size(_constant(epsilon)) == 1
        and np.array_equal(_constant(axes), [-1])
    )


def _layer_normalization(op, x, gamma, epsilon, axes, beta=None):
    gamma = _constant(gamma).reshape(-1)
    beta = np.zeros_like(gamma) if beta is None else _constant(beta).reshape(-1)
    tensor = _package("onnx_ir").tensor
    scale = op.initializer(tensor(gamma), name=f"{x.name}_gamma")
    bias = op.initializer(tensor(beta), name=f"{x.name}_beta")
    return op.LayerNormalization(x, scale, bias, axis=-1, epsilon=float(_constant(epsilon).item()))


def _gelu_by_complement(op, x, half, one, root):
    """x / 2 * erfc(-x * sqrt(1 / 2)), as TensorFlow computes it."""
    return op.Mul(op.Mul(half, x), op.Sub(one, op.Erf(op.Mul(op.Neg(x), root))))


def _is_gelu(context, half, one, root, **_):
    values = [_constant(value) for value in (half, one, root)]
    return all(np.size(value) == 1 and value is not None for value in values) and np.allclose(
        [value.item() for value in values], [0.5, 1.0, 0.5**0.5]
    )


def _gelu(op, x, half, one, root):
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Mul(x, root)), one)), half)


def _constant(value):
    """The array of a value of the graph; None if it is computed."""
    return None if value.const_value is None else value.const_value.numpy()


def _package(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise ImportError(
            f"ONNX files need the package {missing}: pip install pit_keras[onnx]."
        ) from error
