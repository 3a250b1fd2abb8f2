"""A run that ends in seconds, to show things with: a tiny PiT on the embedded digits."""

from pit_keras.training.recipes import recipe


def digits_config(epochs=8):
    """The configuration of a PiT of 72,186 parameters, 32 x 32 pixels, three stages of one block.

    Digits are not flipped, as a mirrored 2 is none. The rate is far above ImageNet's, since there
    are few steps.

    Args:
        epochs: On two processor cores each takes a second or two.
    """
    config = recipe("vanilla", "pit_ti")
    config.model.patch_size, config.model.stride = 4, 4
    config.model.head_dim, config.model.depths = 8, (1, 1, 1)
    config.data.dataset, config.data.image_size = "digits", (32, 32)
    config.data.flip, config.data.eval_crop = False, 1.0
    config.data.crop_scale, config.data.crop_aspect = (0.6, 1.0), (0.8, 1.25)
    config.optimizer.learning_rate, config.optimizer.warmup_epochs = 1.6e-2, 1.0
    config.training.epochs, config.training.batch_size = epochs, 64
    return config
