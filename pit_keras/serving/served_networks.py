"""A model made ready for serving: compiled once, with what the server tells about it."""

import collections.abc
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from pit_keras.data.preprocessing import preprocess_evaluation, resize_and_crop
from pit_keras.export.saved_model import SIGNATURE
from pit_keras.models.attention import TransformerBlock
from pit_keras.models.features import attention_maps, stage_features
from pit_keras.models.inference import logits_only


@dataclasses.dataclass(frozen=True)
class Attention:
    """Whom the class token of a stage's last block looks at.

    Attributes:
        block: Name of the block.
        heads: How many it has.
        grid: Height and width of the stage's map.
        function: A list of one prepared image to a list of one float32 array (heads, h, w), the
            weights that the class token gives to the spatial tokens. What is missing in their sum
            to 1 goes to the class (and distillation) tokens.
    """

    block: str
    heads: int
    grid: tuple[int, int]
    function: collections.abc.Callable


class KerasNetwork:
    """A `TrainedModel`, compiled.

    It is traced once, for batches of any size: on two cores that was as fast as functions traced
    for one size each.

    Attributes:
        class_names, image_size, eval_crop: Those of the trained model.
        attention: By stage, its `Attention`; empty for models without any.
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
        layer = model.get_layer(block)
        height, width = stage_features(model, stage).output_shape[1:3]
        maps = attention_maps(model, block)

        def of_class_token(images):
            weights = maps(images, training=False)  # (B, heads, T + N, T + N)
            spatial = weights[:, :, 0, -height * width :]
            return tf.reshape(spatial, (-1, layer.num_heads, height, width))

        function = self._compile(of_class_token)
        return Attention(
            block,
            layer.num_heads,
            (height, width),
            lambda prepared: function(tf.stack(prepared)).numpy(),
        )

    def _compile(self, function):
        images = tf.TensorSpec((None, *self.image_size, 3), tf.float32)
        return tf.function(function, input_signature=[images], autograph=False)


class TFLiteNetwork:
    """A `TFLiteModel`, loaded once, and without attention.

    Attributes:
        class_names, image_size, eval_crop: Those of the file.
        attention: Empty.
    """

    def __init__(self, model):
        # Where it is missing, loading the model has said so.
        from ai_edge_litert.interpreter import Interpreter

        self.class_names, self.image_size = model.class_names, model.image_size
        self.eval_crop, self.attention = model.eval_crop, {}
        self._interpreter = Interpreter(model_path=str(model.path))
        self._classify = self._interpreter.get_signature_runner(SIGNATURE)
        self._batch = int(self._classify.get_input_details()["images"]["shape"][0])

    def prepare(self, image):
        """uint8 (H, W, 3) to what the model sees, uint8 of its own size. For any thread."""
        return tf.cast(resize_and_crop(image, self.image_size, self.eval_crop), tf.uint8).numpy()

    def logits(self, prepared):
        """Logits (N, classes) of a list of prepared images."""
        batches = np.zeros(
            (-(-len(prepared) // self._batch), self._batch, *self.image_size, 3), "uint8"
        )
        batches.reshape(-1, *self.image_size, 3)[: len(prepared)] = prepared
        logits = [self._classify(images=batch)["logits"] for batch in batches]
        return np.concatenate(logits)[: len(prepared)]


def _last_blocks(model):
    """By number of the stage, the name of its last block."""
    blocks = [layer.name for layer in model.layers if isinstance(layer, TransformerBlock)]
    return {int(name.partition("_")[0].removeprefix("stage")): name for name in blocks}
