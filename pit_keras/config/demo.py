"""Runs of seconds, for demonstrations: a tiny PiT on digits, and a tiny detector."""

from pit_keras.config.recipes import recipe


def digits_config(epochs=8):
    """A PiT of 72,186 parameters for 32 x 32 pixels, three stages of one block.

    An epoch takes a second or two on two processor cores. Digits are not flipped, as a mirrored 2
    is none. The rate is far above ImageNet's, since there are few steps.
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


def scenes_config(dataset, epochs=100):
    """A detector of 220,000 parameters that overfits a few scenes of 64 x 64 pixels.

    `dataset` is such as "coco:PATH" with what `train/digit_scenes.py` writes to PATH.
    An epoch of eight images takes about a third of a second on two processor cores. Nothing is
    augmented, the backbone starts from random weights and learns as fast as the rest, and the rate
    is ten times DETR's and drops late, since there are few steps.
    """
    config = recipe("detr", "detr_pit_s")
    model, data, detection = config.model, config.data, config.detection
    model.weights, model.normalize_features = None, True
    model.patch_size, model.stride, model.output_stride = 4, 4, 8
    model.head_dim, model.depths, model.heads = 16, (1, 1, 1), (1, 2, 4)
    model.queries, model.encoder_layers, model.decoder_layers = 10, 1, 2
    model.hidden_width, model.hidden_heads, model.feed_forward, model.dropout = 64, 4, 128, 0.0
    data.dataset, data.image_size, data.flip = dataset, (64, 64), False
    detection.multi_scale, detection.random_crop, detection.backbone_rate = False, False, 1.0
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1e-3, 1.0
    detection.drop_at = 0.9
    config.training.epochs, config.training.batch_size = epochs, 4
    return config
