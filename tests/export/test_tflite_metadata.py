"""The tables are read by the numbers of their fields, as a reader of another language does."""

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

import pit_keras
from pit_keras.export.tflite_metadata import with_metadata


class Table:
    """A FlatBuffer's table; fields are numbered from 0 in the order of `metadata_schema.fbs`."""

    def __init__(self, buffer, position):
        self._table = flatbuffers.table.Table(buffer, position)

    def _position(self, field):
        offset = self._table.Offset(4 + 2 * field)
        return offset and offset + self._table.Pos

    def table(self, field):
        return Table(self._table.Bytes, self._table.Indirect(self._position(field)))

    def tables(self, field):
        offset = self._table.Offset(4 + 2 * field)
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        places = range(start, start + 4 * count, 4)
        return [Table(self._table.Bytes, self._table.Indirect(place)) for place in places]

    def text(self, field):
        position = self._position(field)
        return self._table.String(position).decode() if position else None

    def byte(self, field):
        return self._table.Get(number_types.Uint8Flags, self._position(field))

    def floats(self, field):
        vector = self._table.GetVectorAsNumpy(
            number_types.Float32Flags, self._table.Offset(4 + 2 * field)
        )
        return vector.tolist()


@pytest.fixture(scope="module")
def contents(exported):
    return (exported.folder / "model.tflite").read_bytes()


def metadata_of(contents):
    model = schema.ModelT.InitFromPackedBuf(contents)
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    buffer = bytes(model.buffers[entry.buffer].data)
    assert flatbuffers.util.GetBufferIdentifier(buffer, 0) == b"M001"
    return Table(buffer, flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0))


def test_the_model(contents):
    model = metadata_of(contents)
    assert model.text(0) == "pit_ti_distilled"
    assert model.text(1) == "Image classifier of 10 classes in float32."
    assert model.text(2) == pit_keras.__version__
    assert model.text(4) == "pit_keras"
    assert model.text(5) == "CC-BY-4.0, für alle"
    assert model.text(7) == "1.0.0"


def test_the_input_is_an_rgb_image_that_needs_no_normalisation(contents):
    (graph,) = metadata_of(contents).tables(3)
    (image,) = graph.tables(2)
    assert image.text(0) == "image"
    assert image.table(3).byte(0) == 2  # ImageProperties
    assert image.table(3).table(1).byte(0) == 1  # RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])
    assert (image.table(5).floats(0), image.table(5).floats(1)) == ([255.0], [0.0])


def test_the_output_has_labels_in_a_file_that_is_there(contents):
    (graph,) = metadata_of(contents).tables(3)
    (logits,) = graph.tables(3)
    assert logits.text(0) == "logits"
    assert logits.table(3).byte(0) == 1  # FeatureProperties
    (labels,) = logits.tables(6)
    assert labels.byte(2) == 2  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(io.BytesIO(contents)) as archive:
        assert len(archive.read(labels.text(0)).decode().splitlines()) == 10


def test_without_a_licence_nothing_is_said_of_one():
    spec = tf.TensorSpec((1, 2, 2, 3), tf.float32)
    function = tf.function(lambda images: images + 1.0).get_concrete_function(spec)
    model = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    assert metadata_of(with_metadata(model, "name", "description", "MIT")).text(5) == "MIT"
    assert metadata_of(with_metadata(model, "name", "description")).text(5) is None


def test_weights_are_aligned(contents):
    model = schema.Model.GetRootAs(contents)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [
        buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()
    ]
    assert len(starts) > 20
    assert not np.mod(starts, 16).any()
