"""From a trained model to files that others run: SavedModel, TFLite, ONNX, with their model card.

Each form is compared with the Keras model before it is written; who answers requests with it is
`serving`'s concern.
"""
