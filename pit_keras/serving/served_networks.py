"""A model made ready for serving: compiled once, with what the server says about it."""

import collections.abc
from typing import NamedTuple

import tensorflow as tf

from pit_keras.data.preprocessing import preprocess_evaluation
from pit_keras.errors import require_tensorflow
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
        require_tensorflow("Serving")
        self._data = trained.data
        self.class_names = trained.class_names
        self.image_size, self.eval_crop = trained.data.image_size, trained.data.eval_crop
        self.apply_orientation = trained.apply_orientation
        model = logits_only(trained.model)
        self.logits = self._compile(lambda images: model(images, training=False))  # (N, classes)
        blocks = [layer for layer in trained.model.layers if isinstance(layer, TransformerBlock)]
        stages = [int(each.name.partition("_")[0].removeprefix("stage")) for each in blocks]
        self.attention = {
            stage: self._attention(trained.model, stage, block)
            for stage, block in dict(zip(stages, blocks, strict=True)).items()  # the last of each
        }

    def prepare(self, image):
        """uint8 (H, W, 3) to what the model sees, float32 of its own size. For any thread."""
        return preprocess_evaluation(image, self._data)

    def _attention(self, model, stage, block):
        heads, maps = block.num_heads, attention_maps(model, block.name)
        height, width = stage_features(model, stage).output_shape[1:3]

        def of_class_token(images):
            weights = maps(images, training=False)  # (B, heads, T + N, T + N)
            spatial = weights[:, :, 0, -height * width :]
            return tf.reshape(spatial, (-1, heads, height, width))

        return Attention(block.name, heads, (height, width), self._compile(of_class_token))

    def _compile(self, function):
        """The function of a list of prepared images, of any length."""
        images = tf.TensorSpec((None, *self.image_size, 3), tf.float32)
        compiled = tf.function(function, input_signature=[images], autograph=False)
        return lambda prepared: compiled(tf.stack(prepared)).numpy()


class TFLiteNetwork:
    """A `TFLiteModel`, without attention."""

    def __init__(self, model):
        self.class_names, self.image_size = model.class_names, model.image_size
        self.eval_crop, self.attention = model.eval_crop, {}
        self.apply_orientation = model.apply_orientation
        self.prepare, self.logits = model.crop, model.logits_of_crops
