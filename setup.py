"""Packaging of pit_keras. Tool settings live in pyproject.toml, dependencies live here."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "pit_keras/__init__.py").read_text()).group(1)

# The models alone run on any Keras backend, so TensorFlow is an extra, not a requirement.
TRAIN = [
    "tensorflow>=2.18",
    "tensorboard>=2.18",
    "tensorflow-datasets>=4.9",
    "importlib_resources>=6.0",  # tensorflow-datasets imports it and does not require it
    "filelock>=3.12",
    "scikit-learn>=1.3",  # the embedded digits and photographs
    "scipy>=1.10",  # a detector's matching
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "pillow>=10.0",
    "pycocotools>=2.0.8",  # COCO's own metrics of detectors
]
EXPORT = [
    "tensorflow>=2.18",
    "ai-edge-litert>=2.0",
    "ai-edge-quantizer>=0.10",
    "flatbuffers>=24.3",
    "filelock>=3.12",
    "jinja2>=3.1",
    "scikit-learn>=1.3",
    "pillow>=10.0",
]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5", "tf2onnx>=1.17"]
CONVERT = ["safetensors>=0.4", "huggingface_hub>=0.23"]
SERVE = [*EXPORT, "starlette>=0.40", "uvicorn>=0.30", "anyio>=4.0"]
DOCS = ["sphinx>=7.2", "myst-parser>=3.0", "furo>=2024.1"]
NOTEBOOKS = ["nbformat>=5.10", "nbclient>=0.10", "ipykernel>=6.29"]
DEV = [
    *NOTEBOOKS,
    *DOCS,
    "pytest>=9.0",
    "pytest-xdist>=3.7",
    "import-linter>=2.9",
    "ruff>=0.6",
    "httpx>=0.27",
    "playwright>=1.45",
]

setup(
    name="pit_keras",
    version=VERSION,
    description="Pooling-based Vision Transformer (PiT) for Keras 3 and TensorFlow",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["pit_keras", "pit_keras.*"]),
    package_data={
        "pit_keras": ["imagenet_classes.txt"],
        "pit_keras.weights": ["releases.csv"],
        "pit_keras.evaluation": ["*.html", "robustness_paper.csv"],
        "pit_keras.export": ["model_card.md"],
        "pit_keras.serving": ["page.*"],
    },
    install_requires=["keras>=3.8", "numpy>=1.26", "absl-py>=2.0", "rich>=13.0", "pydantic>=2.7"],
    extras_require={
        "train": TRAIN,
        "export": EXPORT,
        "onnx": [*EXPORT, *ONNX],
        "convert": CONVERT,
        "serve": SERVE,
        "docs": [*TRAIN, *EXPORT, *DOCS],
        "dev": sorted({*TRAIN, *EXPORT, *ONNX, *CONVERT, *SERVE, *DEV}),
    },
    entry_points={"console_scripts": ["pit-keras = pit_keras.cli:main"]},
)
