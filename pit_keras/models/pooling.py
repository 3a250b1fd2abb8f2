"""Token pooling, the layer that makes a Vision Transformer a PiT. Shapes as in `tokens`."""

import keras
from keras import layers, ops

from pit_keras.models.execution import compiled_by_xla
from pit_keras.models.initializers import linear_initializers
from pit_keras.models.tokens import POOLING_STRIDE, grid_of, join_tokens, joined_shape, pooled_grid


@keras.saving.register_keras_serializable(package="pit_keras")
class TokenPooling(layers.Layer):
    """Token pooling (section 3.2, figure 4): half the height and width, more channels.

    The map goes through a strided 3 x 3 depth-wise convolution, the class tokens through one Dense
    layer that they share, and both are joined again:
    (B, T, C), (B, H, W, C) -> (B, T + ceil(H / 2) * ceil(W / 2), C * multiplier).

    With stride 1 the grid stays as it is: (B, T + H * W, C * multiplier). For dense prediction that
    goes with dilation 2, so that the kernel's taps are as far apart on the image as if the next
    stage were coarser. The weights are the same.

    Args:
        multiplier: Output channels for each input channel; 2 in every PiT.
        stride: Of the convolution.
        dilation: Of the convolution, and with it the zeros around the map; 1 unless stride is 1.
    """

    KERNEL, STRIDE = 3, POOLING_STRIDE

    def __init__(self, multiplier=2, stride=STRIDE, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.multiplier = multiplier
        self.stride = stride
        self.dilation = dilation

    def build(self, input_shape):
        channels = input_shape[0][-1]
        # Keras' "same" pads even sides on one side only, PyTorch's padding 1 on both; hence
        # explicit zeros and a convolution without padding.
        self.padding = layers.ZeroPadding2D(self.dilation, dtype=self.dtype_policy)
        linear = linear_initializers("torch_default", fan_in=self.KERNEL**2)
        self.depthwise_conv = layers.DepthwiseConv2D(
            self.KERNEL,
            strides=self.stride,
            dilation_rate=self.dilation,
            depth_multiplier=self.multiplier,
            depthwise_initializer=linear["kernel_initializer"],
            bias_initializer=linear["bias_initializer"],
            dtype=self.dtype_policy,
            name="depthwise_conv",
        )
        self.class_dense = layers.Dense(
            channels * self.multiplier,
            **linear_initializers("torch_default", channels),
            dtype=self.dtype_policy,
            name="class_dense",
        )
        self.depthwise_conv.build((None, None, None, channels))
        self.class_dense.build((None, None, channels))

    def call(self, inputs):
        tokens, feature_map = inputs
        padded = self.padding(feature_map)
        pooled = self._pool_by_taps(padded) if compiled_by_xla() else self.depthwise_conv(padded)
        return join_tokens(self.class_dense(tokens), pooled)

    def _pool_by_taps(self, padded):
        """The same convolution as a sum over the kernel's nine taps."""
        kernel = ops.cast(self.depthwise_conv.kernel, padded.dtype)  # (3, 3, C, multiplier)
        bias = ops.cast(self.depthwise_conv.bias, padded.dtype)
        reach, stride = self.dilation * (self.KERNEL - 1), self.stride
        height, width = pooled_grid((side - reach for side in grid_of(padded)), stride)
        rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
        starts = range(0, reach + 1, self.dilation)
        pooled = sum(
            padded[:, top : top + rows : stride, left : left + columns : stride, :, None]
            * kernel[i, j]
            for i, top in enumerate(starts)
            for j, left in enumerate(starts)
        )  # (B, H, W, C, multiplier)
        return ops.reshape(pooled, (-1, height, width, bias.shape[0])) + bias

    def compute_output_shape(self, input_shape):
        (_, num_tokens, channels), (batch, *grid, _) = input_shape
        pooled = (batch, *pooled_grid(grid, self.stride), channels * self.multiplier)
        return joined_shape(num_tokens, pooled)

    def get_config(self):
        return {
            **super().get_config(),
            "multiplier": self.multiplier,
            "stride": self.stride,
            "dilation": self.dilation,
        }
