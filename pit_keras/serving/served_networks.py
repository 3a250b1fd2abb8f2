"""A model made ready for serving: compiled once, with what the server says about it."""

import collections.abc
from typing import NamedTuple

import keras
import tensorflow as tf

from pit_keras.data.preprocessing import preprocess_evaluation
from pit_keras.export.tflite import logits_of, signature
from pit_keras.models.attention import TransformerBlock
from pit_keras.models.features import attention_maps, stage_features
from pit_keras.models.inference import logits_only


class Attention(NamedTuple):
    """Where the class token of a stage's last block looks.

    `function` maps a list of prepared images to float32 arrays (heads, h, w) of the `grid` (h, w),
    the weights that the class token gives to the spatial tokens. What is missing in their sum to 1
    goes to the class (and distillation) tokens.
    """

    block: str
    heads: int
    grid: tuple[int, int]
    function: collections.abc.Callable


class KerasNetwork:
    """A `TrainedModel`, compiled once for batches of any size; `attention` is by stage.

    On two cores that was as fast as functions traced for one size each.
    """

    def __init__(self, trained):
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "pit-keras serve runs on Keras' TensorFlow backend; unset KERAS_BACKEND."
            )
        self._data = trained.data
        self.class_names = trained.class_names
        self.image_size, self.eval_crop = trained.data.image_size, trained.data.eval_crop
        model = logits_only(trained.model)
        self._logits = self._compile(lambda images: model(images, training=False))
        self.attention = {
            stage: self._attention(trained.model, stage, block)
            for stage, block in _last_blocks(trained.model).items()
        }

    def prepare(self, image):
        """uint8 (H, W, 3) to what the model sees, float32 of its own size. For any thread."""
        return preprocess_evaluation(image, self._data)

    def logits(self, prepared):
        """Logits (N, classes) of a list of prepared images."""
        return self._logits(tf.stack(prepared)).numpy()

    def _attention(self, model, stage, block):
        heads = model.get_layer(block).num_heads
        height, width = stage_features(model, stage).output_shape[1:3]
        maps = attention_maps(model, block)

        def of_class_token(images):
            weights = maps(images, training=False)  # (B, heads, T + N, T + N)
            spatial = weights[:, :, 0, -height * width :]
            return tf.reshape(spatial, (-1, heads, height, width))

        compiled = self._compile(of_class_token)
        return Attention(
            block, heads, (height, width), lambda prepared: compiled(tf.stack(prepared)).numpy()
        )

    def _compile(self, function):
        images = tf.TensorSpec((None, *self.image_size, 3), tf.float32)
        return tf.function(function, input_signature=[images], autograph=False)


class TFLiteNetwork:
    """A `TFLiteModel`, loaded once, and without attention."""

    def __init__(self, model):
        self.class_names, self.image_size = model.class_names, model.image_size
        self.eval_crop, self.attention = model.eval_crop, {}
        self.prepare = model.crop
        self._classify = signature(model.path)

    def logits(self, prepared):
        """Logits (N, classes) of a list of prepared images."""
        return logits_of(self._classify, prepared)


def _last_blocks(model):
    """By number of the stage, the name of its last block."""
    blocks = [layer.name for layer in model.layers if isinstance(layer, TransformerBlock)]
    return {int(name.partition("_")[0].removeprefix("stage")): name for name in blocks}
