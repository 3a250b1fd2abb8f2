"""TFLite's metadata: what Android's and MediaPipe's tools read of a model beside its graph.

They are a FlatBuffer of their own (`metadata_schema.fbs`, identifier M001) in one of the model's
buffers. The library that wrote them is no longer kept.
"""

import flatbuffers
import numpy as np

from pit_keras import __version__
from pit_keras.export.sidecars import CLASSES_FILE

METADATA_NAME = "TFLITE_METADATA"

_ALIGNMENT = 16  # bytes, of buffers in a TFLite file
_PARSER_VERSION = "1.0.0"  # the oldest reader that knows all fields used here


def with_metadata(model, name, description, license=None):
    """The bytes of a TFLite model with metadata in it.

    The model takes an RGB image of values 0..255 that needs no normalisation and gives logits,
    whose labels are in the associated file `CLASSES_FILE`: the caller appends it to the bytes.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray

    content = read_model_from_bytearray(model)
    entry = schema.MetadataT(name=METADATA_NAME, buffer=len(content.buffers))
    content.metadata = [*(content.metadata or []), entry]
    content.buffers.append(schema.BufferT(data=_metadata(name, description, license)))
    for buffer in content.buffers:
        if buffer.data is not None:  # the builder takes all bytes of an array at once
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    builder = _AlignedBuilder(len(model))
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _metadata(name, description, license):
    zero, one, largest = (np.array([value], np.float32) for value in (0, 1, 255))
    no_dimensions = no_units = no_range = no_files = None
    image = (
        "image",
        "RGB image of the model's size. It is normalised within the model.",
        no_dimensions,
        (2, (1,)),  # ImageProperties, RGB
        [(1, (zero, one))],  # NormalizationOptions: mean, deviation
        (largest, zero),  # largest, smallest value
    )
    labels = (
        CLASSES_FILE,
        "Names of the classes, one a line in the order of the logits.",
        2,  # TENSOR_AXIS_LABELS
    )
    logits = (
        "logits",
        "Logits of the classes; their softmax is the probabilities.",
        no_dimensions,
        (1, ()),  # FeatureProperties
        no_units,
        no_range,
        [labels],
    )
    graph = (None, None, [image], [logits])
    model = (name, description, __version__, [graph], "pit_keras", license)
    builder = flatbuffers.Builder()
    root = _write(builder, (*model, no_files, _PARSER_VERSION))
    builder.Finish(root, file_identifier=b"M001")
    return bytes(builder.Output())


def _write(builder, value):
    """Writes a text, an array, a list of tables, or a table; returns its offset.

    A table is a tuple of its fields in the order of the schema. None leaves a field out, and an
    integer is a field of one byte.
    """
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    fields = [None if isinstance(each, int | None) else _write(builder, each) for each in value]
    if isinstance(value, list):
        builder.StartVector(4, len(fields), 4)
        for offset in reversed(fields):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    builder.StartObject(len(fields))
    for slot, (given, offset) in enumerate(zip(value, fields, strict=True)):
        if isinstance(given, int):
            builder.PrependUint8Slot(slot, given, 0)
        elif given is not None:
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return builder.EndObject()


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns weights as the schema of TFLite asks, which Python's generated code does not."""

    def StartVector(self, element_size, length, alignment):
        alignment = _ALIGNMENT if element_size == 1 else alignment
        return super().StartVector(element_size, length, alignment)
