from tflite_files import operations


def test_int8_is_the_products_alone(exported):
    listed = operations(exported.folder / "model_int8.tflite")
    assert [entry for entry in listed if entry[0] == "CONV_2D"] == [
        ("CONV_2D", ["INT8", "INT8", "INT32"], ["INT8"])
    ]
    *products, first, second = [entry for entry in listed if entry[0] == "FULLY_CONNECTED"]
    assert len(products) == 3 * 4 + 2  # of three blocks, and for the class tokens of two poolings
    for _, inputs, outputs in products:
        assert (inputs, outputs) == (["INT8", "INT8", "INT32"], ["INT8"])
    for _, inputs, outputs in (first, second):  # the classifiers, whose logits nothing may clip
        assert (inputs, outputs) == (["FLOAT32", "INT8", "FLOAT32"], ["FLOAT32"])
    others = [entry for entry in listed if entry[0] in ("RSQRT", "SOFTMAX", "GELU", "BATCH_MATMUL")]
    assert {operation for operation, _, _ in others} == {
        "RSQRT",
        "SOFTMAX",
        "GELU",
        "BATCH_MATMUL",
    }
    assert all({*inputs, *outputs} == {"FLOAT32"} for _, inputs, outputs in others)
