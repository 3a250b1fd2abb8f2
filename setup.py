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
GALLERY = ["keras-cv==0.9.0", "opencv-python-headless>=4.8"]  # its last release
COMPLETE = ["argcomplete>=3.0"]
DOCS = ["sphinx>=7.2", "myst-parser>=3.0", "furo>=2024.1"]
NOTEBOOKS = ["nbformat>=5.10", "nbclient>=0.10", "ipykernel>=6.29"]
DEV = [
    *COMPLETE,
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
    keywords=[
        "PiT",
        "vision transformer",
        "token pooling",
        "Keras",
        "image classification",
        "DETR",
    ],
    project_urls={
        "Source": "URL_OF_THIS_REPOSITORY",
        "Paper": "https://arxiv.org/abs/2103.16302",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["pit_keras", "pit_keras.*"]),
    package_data={
        "pit_keras": ["imagenet_classes.txt", "py.typed"],
        "pit_keras.weights": ["releases.csv"],
        "pit_keras.evaluation": ["*.html", "robustness_paper.csv"],
        "pit_keras.export": ["model_card.md"],
        "pit_keras.measure": ["folder_results.csv"],
        "pit_keras.serving": ["page.*"],
    },
    install_requires=[
        "keras>=3.8",
        "numpy>=1.26",
        "absl-py>=2.0",
        "rich>=13.0",
        "pydantic>=2.7",
        "annotated-types>=0.6",  # pydantic's own ranges of numbers
    ],
    extras_require={
        "train": TRAIN,  # check, train, detect, sweep, analyze, predict, evaluate
        "export": EXPORT,  # SavedModel and TFLite
        "onnx": [*EXPORT, *ONNX],  # ONNX files too
        "convert": CONVERT,  # released weights and .safetensors files
        "serve": SERVE,  # the HTTP server
        "gallery": GALLERY,  # keras-cv's pictures of predictions; else they are plain
        "complete": COMPLETE,  # a shell's completion of commands and flags
        "docs": [*TRAIN, *EXPORT, *DOCS],  # `make docs`
        # All of it, and what the tests need.
        "dev": sorted({*TRAIN, *EXPORT, *ONNX, *CONVERT, *SERVE, *GALLERY, *DEV}),
    },
    entry_points={"console_scripts": ["pit-keras = pit_keras.cli:main"]},
)
