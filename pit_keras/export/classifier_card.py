"""What a model card says of classifiers; `detector_card` says the same of detectors."""

from pit_keras.export.formats import FORMATS

KIND = "An image classifier"
ERRORS = "differences of logits from the Keras model's"
SAME = '"same top-1" is the share whose likeliest class is the same'
EXACT = "of the Keras model's largest logit"

PILLOW = """\
import numpy as np
from PIL import Image, ImageOps
{imports}
photo = Image.open("photo.jpg").convert("RGB")
crop = ImageOps.fit(photo, ({width}, {height}), Image.Resampling.BICUBIC, bleed={bleed:.4g})
"""


def ability(trained):
    """What it looks at and what it tells, up to the names of its classes."""
    height, width = trained.data.image_size
    return (
        f"It looks at {height} x {width} pixels (height before width) and tells "
        f"{len(trained.class_names):,} classes apart"
    )


def snippet(entry, trained):
    """A few lines of Python that print the likeliest class of photo.jpg."""
    if FORMATS[entry.format].family == "saved_model":
        return (
            "import tensorflow as tf\n\n"
            f'model = tf.saved_model.load("{entry.path}")\n'
            'photo = tf.io.read_file("photo.jpg")\n'
            'outputs = model.signatures["serve_bytes"](image_bytes=photo[None])\n'
            'print(outputs["top_classes"][0, 0].numpy().decode())\n'
        )
    height, width = trained.data.image_size
    bleed = (1 - trained.data.eval_crop) / 2
    if FORMATS[entry.format].family == "tflite":
        imports = "from ai_edge_litert.interpreter import Interpreter\n"
        batch = "[None]" if entry.batch_size == 1 else f"[None].repeat({entry.batch_size}, axis=0)"
        call = (
            f'classify = Interpreter("{entry.path}", num_threads=2).get_signature_runner()\n'
            f'logits = classify(images=np.asarray(crop){batch})["logits"]\n'
        )
    else:
        imports = "from onnxruntime import InferenceSession\n"
        call = (
            f'session = InferenceSession("{entry.path}")\n'
            '(logits,) = session.run(["logits"], {"images": np.asarray(crop)[None]})\n'
        )
    names = 'print(open("classes.txt", encoding="utf-8").read().splitlines()[logits[0].argmax()])\n'
    return PILLOW.format(imports=imports, width=width, height=height, bleed=bleed) + call + names


def preprocessing(trained):
    """What happens to an image before the network."""
    data = trained.data
    height, width = data.image_size
    assumed = "" if trained.folder else " (assumed: there was no run folder to say so)"
    return (
        "RGB, 8 bits, as the file stores it: an orientation given in EXIF is not applied. The "
        "image is resized (bicubic, antialiased), its aspect kept, and the model sees the middle "
        f"{height} x {width} pixels: {data.eval_crop:.1%} of the short side{assumed}. These are "
        f"normalised with mean {numbers(data.mean)} and standard deviation "
        f"{numbers(data.std)} of values in 0..1. The SavedModel does all of this; the other files "
        "take the crop as uint8 and normalise it.\n"
    )


def teacher(config):
    """What a run learned from beside the labels."""
    distilled = config.distillation
    if distilled.kind == "none":
        return ""
    return f", with `{distilled.teacher}` as teacher ({distilled.kind} distillation)"


def optimizer(config):
    """The optimizer and its learning rate."""
    return f"AdamP, learning rate {config.optimizer.learning_rate:g} for a batch of 512"


def augmentation(config):
    """What was done to the images."""
    data = config.data
    mixing = [
        name for name, on in (("MixUp", data.mixup_alpha), ("CutMix", data.cutmix_alpha)) if on
    ]
    return [
        "random resized crops",
        *(["horizontal flips"] if data.flip else []),
        *(["RandAugment"] if data.rand_augment else []),
        *(["random erasing"] if data.erasing else []),
        *mixing,
    ]


def results(results):
    """How well the Keras model does, from the run's `results.json`."""
    return (
        f"The Keras model on the {results['images']:,} images of the `{results['split']}` split of "
        f"`{results['dataset']}` (centre crop {results['eval_crop']:g}): top-1 "
        f"{results['top1']:.2%}, top-5 {results['top5']:.2%}. The files' accuracy was not measured "
        "by itself; the table above says how often they answer as the Keras model does.\n"
    )


def habits(trained):
    """What it does that one may not expect, first and last of the limits."""
    return (
        f"It names one of its {len(trained.class_names):,} classes for every image, also for one "
        "that shows none of them. The probabilities are not calibrated.",
        "Only the middle of a long image is seen.",
    )


def numbers(values):
    """Numbers in brackets."""
    return f"({', '.join(f'{value:g}' for value in values)})"
