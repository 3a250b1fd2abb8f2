"""What Keras has for any model does its work on ours: what a user of Keras types unasked."""

import copy

import forked
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from tolerances import assert_close, terms_along

import pit_keras
from pit_keras.models.attention import TransformerBlock

LABELS = np.array([0, 1, 2, 3])


def small(variant="pit_ti_distilled", /, **arguments):
    settings = {"input_shape": (32, 32, 3), "classes": 5, "patch_size": 4, "stride": 2}
    sizes = {"head_dim": 8, "depths": (1, 1, 1)}
    return pit_keras.create_model(variant, **{**settings, **sizes, **arguments})


def images():
    return np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")


def fit(model, optimizer=None, eagerly=True, **arguments):
    """Two batches of two images. One step is over before TensorFlow has traced its graph."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    model.compile(optimizer, loss, run_eagerly=eagerly, jit_compile=False)
    settings = {"batch_size": 2, "shuffle": False, "verbose": 0}
    return model.fit(images(), LABELS, **{**settings, **arguments})


def values(model):
    return {weight.path: np.array(weight) for weight in model.weights}


def changed(before, after):
    return {path for path in before if (before[path] != after[path]).any()}


def test_a_quantized_model_is_saved_and_loaded_in_a_fresh_process(tmp_path):
    model = small()
    expected = np.asarray(model(images()))
    model.quantize("int8")
    quantized = np.asarray(model(images()))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images())
    # Twice, since a loaded model holds its dtype policies differently.
    script = (
        "import keras, numpy, pit_keras\n"
        "keras.models.load_model('model.keras').save('again.keras')\n"
        "model = keras.models.load_model('again.keras')\n"
        "numpy.save('logits.npy', model(numpy.load('images.npy')))\n"
    )
    forked.run_code(script, tmp_path).check_returncode()

    block = model.get_layer("stage2_block1")
    dense = [model.get_layer("pooling1").class_dense, block.attention.qkv, block.mlp.expand]
    assert {layer.quantization_mode for layer in dense} == {"int8"}
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), quantized)
    # 127 steps of each weight and input; far more than rounding, and far less than the numbers.
    assert 0 < np.abs(quantized - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.slow
def test_a_quantized_detector_is_loaded(tmp_path):
    sizes = {"queries": 3, "encoder_layers": 1, "decoder_layers": 1, "hidden_width": 16}
    sizes |= {"hidden_heads": 2, "feed_forward": 24, "output_stride": 4, "heads": (1, 2, 4)}
    model = small("detr_pit_s", **sizes)
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")(images())
    for name, expected in model(images()).items():
        np.testing.assert_array_equal(loaded[name], expected)


def test_export_writes_onnx(tmp_path):
    model, path = small(), str(tmp_path / "model.onnx")
    expected = model(images())
    model.export(path, format="onnx", verbose=False)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images()})
    assert_close(logits, expected, roundings=terms_along(model))


def test_only_lora_and_the_heads_are_trained_and_merged_into_the_file(tmp_path):
    model = small()
    blocks = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    for layer in model.layers:
        layer.trainable = layer in blocks or layer.name in ("head", "head_dist")
    for block in blocks:
        block.attention_norm.trainable = block.mlp_norm.trainable = False
        for dense in (block.attention.qkv, block.attention.projection):
            dense.enable_lora(rank=2)
        block.mlp.trainable = False
    before = values(model)

    fit(model)

    paths = changed(before, values(model))
    assert {path.rsplit("/", 1)[1] for path in paths if "block" in path} == {
        *("lora_kernel_a", "lora_kernel_b", "bias")
    }
    assert all("attention/" in path or path.startswith("head") for path in paths)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(small().weights)
    assert_close(loaded(images()), model(images()), roundings=terms_along(loaded))


def test_the_average_of_the_weights_is_evaluated_and_kept():
    model, after_steps, evaluated = small(), [], []
    kernel = model.get_layer("stage1_block1").attention.qkv.kernel
    before = np.array(kernel)

    class Kernels(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            after_steps.append(np.array(kernel))

        def on_test_batch_end(self, batch, logs=None):
            evaluated.append(np.array(kernel))

    fit(
        model,
        keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
        eagerly=False,
        callbacks=[keras.callbacks.SwapEMAWeights(), Kernels()],
        validation_data=(images(), LABELS),
    )

    first, second = after_steps
    assert (first != before).any()
    assert_close(evaluated[0], (first + second) / 2, roundings=4)  # it begins at the first step
    np.testing.assert_array_equal(kernel, evaluated[0])  # `fit` ends so


def test_accumulated_gradients_are_those_of_the_whole_batch():
    whole, parts = small(), small()
    parts.set_weights(whole.get_weights())
    before = values(whole)
    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)

    fit(whole, batch_size=4)
    fit(parts, accumulating, eagerly=False)

    assert len(changed(before, values(parts))) == len(parts.weights)
    for path, expected in values(whole).items():
        assert_close(values(parts)[path], expected, roundings=2 * terms_along(whole), scale=1)


@pytest.mark.parametrize("copied", [keras.models.clone_model, copy.deepcopy])
def test_a_copy_computes_the_same_and_is_trained_alone(copied):
    model = small(name="mine")
    before = values(model)

    twin = copied(model)
    twin.set_weights(model.get_weights())

    np.testing.assert_array_equal(twin(images()), model(images()))
    fit(twin)
    assert not changed(before, values(model))
    assert len(changed(before, values(twin))) == len(before)


@pytest.mark.parametrize("head_is_trained", [True, False])
def test_head_or_backbone_alone_is_trained(head_is_trained):
    model = small("pit_ti")
    for layer in model.layers:
        layer.trainable = (layer.name == "head") == head_is_trained
    before = values(model)

    fit(model)

    of_head = {path for path in before if path.startswith("head/")}
    expected = of_head if head_is_trained else set(before) - of_head
    assert changed(before, values(model)) == expected


def test_mixed_precision_trains_weights_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
        before = values(model)
        history = fit(model, eagerly=False)
    finally:
        keras.config.set_dtype_policy("float32")

    assert model.get_layer("stage3_block1").output.dtype == "bfloat16"
    assert np.isfinite(history.history["loss"]).all()
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert len(changed(before, values(model))) == len(before)


def test_two_models_are_an_ensemble(tmp_path):
    inputs = keras.Input((32, 32, 3))
    members = [small("pit_ti", name=name) for name in ("first", "second")]
    outputs = keras.layers.Average()([member(inputs) for member in members])
    ensemble = keras.Model(inputs, outputs)
    ensemble.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    expected = (members[0](images()) + members[1](images())) / 2
    np.testing.assert_array_equal(loaded(images()), expected)


def test_the_layers_before_the_heads_have_names():
    names = [layer.name for layer in small().layers]
    assert names[-6:-1] == ["norm", "pre_logits", "pre_logits_dist", "head", "head_dist"]
    model = small("pit_ti")
    assert model.get_layer("head").input is model.get_layer("pre_logits").output
