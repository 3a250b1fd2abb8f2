"""Token pooling, the layer that makes a Vision Transformer a PiT. Shapes as in `tokens`."""

from keras import layers, ops

from pit_keras.models.execution import compiled_by_xla
from pit_keras.models.initializers import linear, linear_initializers
from pit_keras.models.serialization import registered
from pit_keras.models.tokens import POOLING_STRIDE, grid_of, join_tokens, pooled_grid


@registered
class TokenPooling(layers.Layer):
    """Token pooling (section 3.2, figure 4): half the height and width, more channels.

    A strided 3 x 3 depth-wise convolution pools the map, one Dense layer widens all class tokens:
    (B, T, C), (B, H, W, C) -> (B, T + ceil(H / 2) * ceil(W / 2), C * multiplier).

    For dense prediction the same weights keep the grid, with stride 1 and dilation 2: the kernel
    then covers as much of the image as with a coarser grid.
    """

    KERNEL, STRIDE = 3, POOLING_STRIDE

    def __init__(self, multiplier=2, stride=STRIDE, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.multiplier = multiplier
        self.stride = stride
        self.dilation = dilation

    def build(self, input_shape):
        channels, policy = input_shape[0][-1], self.dtype_policy
        initial = linear_initializers("torch_default", fan_in=self.KERNEL**2)
        self.depthwise_conv = layers.DepthwiseConv2D(
            self.KERNEL,
            strides=self.stride,
            data_format="channels_last",
            dilation_rate=self.dilation,
            depth_multiplier=self.multiplier,
            depthwise_initializer=initial["kernel_initializer"],
            bias_initializer=initial["bias_initializer"],
            dtype=policy,
            name="depthwise_conv",
        )
        self.class_dense = linear("class_dense", channels, channels * self.multiplier, policy)
        self.depthwise_conv.build((None, None, None, channels))

    def call(self, inputs):
        tokens, feature_map = inputs
        # Keras' "same" pads even sides on one side only, PyTorch's padding 1 on both.
        sides = (self.dilation, self.dilation)
        padded = ops.pad(feature_map, [(0, 0), sides, sides, (0, 0)])
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
