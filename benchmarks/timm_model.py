"""A PiT here and timm's with the same weights, on two threads each."""

import contextlib
import importlib.util
import os

from command import new_model, small_fields

THREADS = 2
LEARNING_RATE = 1e-3  # of training steps


def use_two_threads():
    """Sets the threads of TensorFlow and PyTorch; before either has computed anything."""
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if has("torch"):
        import torch

        torch.set_num_threads(THREADS)


def has(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


def pair(options):
    """The model `options.model` here and in timm; None for the latter if it is not installed."""
    ours = new_model(options.model, options)
    if not has("torch", "timm"):
        print("timm is not installed, so its figures stay empty: pip install torch timm")
        return ours, None
    import timm

    import pit_keras

    small = {}
    if options.small:
        fields = small_fields(options.model)
        small = {"depth": list(fields["depths"]), "heads": list(fields["heads"])}
        small["base_dims"] = [fields["head_dim"] for _ in fields["heads"]]
        small["img_size"] = options.image_size
    theirs = timm.create_model(f"{options.model}_224", **small)
    pit_keras.load_pytorch_weights(ours, theirs.state_dict())
    return ours, theirs


def torch_call(model, images, cast=None):
    """A forward pass of a batch (B, H, W, 3), as a function without arguments.

    `cast` is a context of PyTorch's for another precision.
    """
    import torch

    model.eval()
    images, _ = on_its_device(model, images)

    def call():
        with torch.inference_mode(), cast or contextlib.nullcontext():
            return model(images).float().cpu().numpy()

    return call


def torch_training(model, images, labels, cast=None):
    """A step of AdamW on a batch; it returns the loss before the step."""
    import torch

    model.train()
    images, labels = on_its_device(model, images, labels)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with cast or contextlib.nullcontext():
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()
        return loss.item()

    return step


def on_its_device(model, images, labels=()):
    import torch

    device = next(model.parameters()).device
    images = torch.tensor(images, device=device).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(labels, device=device)
