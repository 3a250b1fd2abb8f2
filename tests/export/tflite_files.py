"""What is in a TFLite file."""

from ai_edge_litert import schema_py_generated as schema

OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items()}
TYPES = {code: name for name, code in vars(schema.TensorType).items()}
PRODUCTS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")


def operations(path):
    """Name, input types and output types of each operation in a file."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    (graph,) = model.subgraphs

    def types(indices):
        return [TYPES[graph.tensors[index].type] for index in indices]

    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [
        (
            OPERATIONS[codes[operation.opcodeIndex]],
            types(operation.inputs),
            types(operation.outputs),
        )
        for operation in graph.operators
    ]
