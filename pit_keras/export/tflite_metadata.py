"""TFLite's metadata: what Android's and MediaPipe's tools read of a model beside its graph.

It is a FlatBuffer of its own (`metadata_schema.fbs`, identifier M001) in one of the model's
buffers. The library that used to write it is no longer kept, and the few tables needed here are
short. `_Writer.table` takes a table's fields in the order of the schema.
"""

import flatbuffers
import numpy as np

from pit_keras import __version__
from pit_keras.export.sidecars import CLASSES_FILE

METADATA_NAME = "TFLITE_METADATA"

_ALIGNMENT = 16  # bytes, of buffers in a TFLite file
_PARSER_VERSION = "1.0.0"  # the oldest reader that knows all fields used here
# Values of the schema's enumerations and unions.
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_RGB = 1  # ColorSpaceType
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2  # ContentProperties
_NORMALIZATION_OPTIONS = 1  # ProcessUnitOptions


def with_metadata(model, name, description, license=None):
    """The bytes of a TFLite model with metadata in it.

    The input is an RGB image of values 0..255 that needs no normalisation. The labels of the output
    are in the associated file `CLASSES_FILE`, which whoever calls appends to the bytes.

    Args:
        model: Bytes of a model of one image tensor and one tensor of logits.
        name: Of the model.
        description: A sentence about it.
        license: Under which the model may be used, a name or a text; None to say nothing of it.

    Raises:
        ImportError: If LiteRT is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools.flatbuffer_utils import read_model_from_bytearray
    except ImportError as error:
        raise ImportError(
            "Writing a TFLite file needs the package ai-edge-litert: pip install pit_keras[export]."
        ) from error
    content = read_model_from_bytearray(model)
    metadata = _metadata(name, description, license)
    content.metadata = [
        *(content.metadata or []),
        schema.MetadataT(name=METADATA_NAME, buffer=len(content.buffers)),
    ]
    content.buffers.append(schema.BufferT(data=metadata))
    for buffer in content.buffers:
        if buffer.data is not None:  # of an array the builder takes all bytes at once
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    builder = _AlignedBuilder(len(model))
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _metadata(name, description, license):
    write = _Writer()
    image = write.table(
        write.text("image"),
        write.text("RGB image of the model's size. It is normalised within the model."),
        None,  # names of dimensions
        write.content(_IMAGE_PROPERTIES, write.table(_Byte(_RGB))),
        write.vector(
            write.table(
                _Byte(_NORMALIZATION_OPTIONS),
                write.table(write.floats(0.0), write.floats(1.0)),  # mean, deviation
            )
        ),
        write.table(write.floats(255.0), write.floats(0.0)),  # largest, smallest
    )
    labels = write.table(
        write.text(CLASSES_FILE),
        write.text("Names of the classes, one a line in the order of the logits."),
        _Byte(_TENSOR_AXIS_LABELS),
    )
    logits = write.table(
        write.text("logits"),
        write.text("Logits of the classes; their softmax is the probabilities."),
        None,  # names of dimensions
        write.content(_FEATURE_PROPERTIES, write.table()),
        None,  # process units
        None,  # range of values
        write.vector(labels),
    )
    graph = write.table(None, None, write.vector(image), write.vector(logits))
    root = write.table(
        write.text(name),
        write.text(description),
        write.text(__version__),
        write.vector(graph),
        write.text("pit_keras"),
        None if license is None else write.text(license),
        None,  # associated files of the whole model
        write.text(_PARSER_VERSION),
    )
    return write.finished(root)


class _Byte(int):
    """A field's value itself, one byte; other fields are offsets of what was written before."""


class _Writer:
    def __init__(self):
        self._builder = flatbuffers.Builder()

    def text(self, text):
        return self._builder.CreateString(text)

    def floats(self, *values):
        return self._builder.CreateNumpyVector(np.array(values, np.float32))

    def vector(self, *offsets):
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def table(self, *fields):
        """A table of fields in the order of the schema; None leaves one out."""
        self._builder.StartObject(len(fields))
        for slot, field in enumerate(fields):
            if isinstance(field, _Byte):
                self._builder.PrependUint8Slot(slot, field, 0)
            elif field is not None:
                self._builder.PrependUOffsetTRelativeSlot(slot, field, 0)
        return self._builder.EndObject()

    def content(self, kind, properties):
        return self.table(_Byte(kind), properties)

    def finished(self, root):
        self._builder.Finish(root, file_identifier=b"M001")
        return bytes(self._builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns weights as the schema of TFLite asks, which Python's generated code does not."""

    def StartVector(self, element_size, length, alignment):
        alignment = _ALIGNMENT if element_size == 1 else alignment
        return super().StartVector(element_size, length, alignment)
