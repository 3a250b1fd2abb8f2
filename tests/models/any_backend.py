"""Runs small networks on whatever backend Keras has and writes their numbers to a file.

KERAS_BACKEND=jax python tests/models/any_backend.py numbers.npz
"""

import sys
import tempfile
import zlib

import keras
import numpy as np

import pit_keras
from pit_keras.explain.interaction import interaction_model
from pit_keras.losses import soft_cross_entropy
from pit_keras.models import masked_detector
from pit_keras.models.attention import TransformerBlock
from pit_keras.optimizers import AdamP
from pit_keras.training.detection_loss import detection_losses

# A network and the overrides that make it small; one line each.
NETWORKS = {
    "pit_ti_distilled": {"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1)},
    "vit_ti": {"patch_size": 4, "stride": 4, "head_dim": 8, "depth": 2},
    "resnet50": {"base_width": 4, "depths": (1, 1, 1, 1)},
    "regnety_160": {"stage_widths": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "group_width": 8},
}
DETECTOR = {
    **{"queries": 6, "encoder_layers": 1, "decoder_layers": 2, "hidden_width": 16},
    **{"hidden_heads": 2, "feed_forward": 24, "output_stride": 4},
    **{"patch_size": 4, "stride": 2, "head_dim": 8, "depths": (1, 1, 1), "heads": (1, 2, 4)},
}
TRAINING_SIZE, OTHER_SIZE = (28, 20), (33, 40)


def numbers(name):
    """Everything that the backends have to agree on, as a dictionary of arrays."""
    model = pit_keras.create_model(name, classes=10, input_shape=(None, None, 3), **NETWORKS[name])
    for variable in model.weights:
        variable.assign(fixed_value(variable))
    readers = {
        "logits": model,
        "features": pit_keras.stage_features(model),
        "pre_logits": pit_keras.pre_logits(model),
    }
    if any(isinstance(layer, TransformerBlock) for layer in model.layers):
        readers["attention"] = pit_keras.attention_maps(model)
        readers["interaction"] = interaction_model(model)
    arrays = {}
    for size in (TRAINING_SIZE, OTHER_SIZE):
        for reader, reads in readers.items():
            for index, output in enumerate(as_list(reads(fixed_images(size)))):
                key = f"{name}/{reader}{index} at {size[0]}x{size[1]}"
                arrays[key] = keras.ops.convert_to_numpy(output)
    arrays[f"{name}/loss"] = np.array(step(model))
    arrays[f"{name}/logits after a step"] = keras.ops.convert_to_numpy(
        model(fixed_images(TRAINING_SIZE))
    )
    return arrays


def detector_numbers():
    """The same of a detector: what each decoder layer finds, and the losses of fixed matches."""
    model = pit_keras.create_model("detr_pit_s", classes=3, input_shape=(None, None, 3), **DETECTOR)
    for variable in model.weights:
        variable.assign(fixed_value(variable))
    mask = np.zeros((2, *OTHER_SIZE), bool)
    mask[1, 20:] = mask[1, :, 30:] = True
    found = masked_detector(model)({"images": fixed_images(OTHER_SIZE), "padding_mask": mask})
    centres = np.random.default_rng(3).uniform(0.3, 0.6, (2, 4, 4)).astype("float32")
    losses = detection_losses(
        found,
        {"boxes": centres, "labels": np.array([[0, 2, -1, -1], [1, 1, 0, -1]], "int32")},
        np.array([[[0, 5, -1, -1], [3, 1, -1, -1]], [[4, 2, 0, -1], [1, 3, 5, -1]]], "int32"),
        box_total=5.0,
        class_weight_total=5.7,
        no_object_weight=0.1,
        l1_weight=5.0,
        giou_weight=2.0,
    )
    arrays = {**found, **losses}
    return {f"detr/{key}": keras.ops.convert_to_numpy(value) for key, value in arrays.items()}


def distilled_numbers():
    """A student's loss and logits after a step with a teacher and, saved and loaded, another."""
    networks = []
    for name in ("pit_ti_distilled", "vit_ti"):
        shape = (*TRAINING_SIZE, 3)
        networks.append(
            pit_keras.create_model(name, classes=10, input_shape=shape, **NETWORKS[name])
        )
        for variable in networks[-1].weights:
            variable.assign(fixed_value(variable))
    distiller, rows = pit_keras.Distiller(*networks, kind="soft", tau=2.0), np.eye(10)[[3, 8]]
    compiled(distiller, soft_cross_entropy)
    losses = [distiller.train_on_batch(fixed_images(TRAINING_SIZE), rows)]
    # Both of the student's heads; then with the optimizer's moments, exclusions and decay by layer.
    compiled(networks[0], soft_cross_entropy, layer_decay=0.5)
    networks[0].train_on_batch(fixed_images(TRAINING_SIZE), rows)
    with tempfile.TemporaryDirectory() as folder:
        networks[0].save(f"{folder}/student.keras")
        loaded = keras.models.load_model(f"{folder}/student.keras")
    for model in (networks[0], loaded):
        model.run_eagerly = keras.backend.backend() == "tensorflow"
        losses.append(model.train_on_batch(fixed_images(TRAINING_SIZE), rows))
    np.testing.assert_array_equal(losses[1], losses[2])
    logits = keras.ops.convert_to_numpy(loaded(fixed_images(TRAINING_SIZE)))
    return {"distilled/losses": np.array(losses), "distilled/logits": logits}


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def step(model):
    """A gradient step; returns the loss before it."""
    # Adam's first step is little more than the gradient's sign, which rounding decides where the
    # gradient is nearly zero; a large epsilon keeps the step continuous there.
    compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.train_on_batch(fixed_images(TRAINING_SIZE), np.array([3, 8]))


def compiled(model, loss, **options):
    model.compile(
        AdamP(learning_rate=1e-3, weight_decay=0.05, epsilon=1e-2, **options),
        loss,
        jit_compile=keras.backend.backend() == "jax",
        # One step is over before TensorFlow has traced its graph.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )


def fixed_value(variable):
    """A value that depends on the variable's path and shape only; variances are positive."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(variable.path.encode())))
    value = generator.standard_normal(tuple(variable.shape)).astype("float32")
    if variable.name in ("gamma", "moving_variance"):
        return 1 + 0.2 * np.abs(value)
    if value.ndim == 1:
        return 0.2 * value
    return value / np.sqrt(np.prod(value.shape[:-1]))


def fixed_images(size):
    return np.random.default_rng(7).normal(size=(2, *size, 3)).astype("float32")


if __name__ == "__main__":
    results = {**detector_numbers(), **distilled_numbers()}
    for network in NETWORKS:
        results |= numbers(network)
    np.savez(sys.argv[1], **results)
