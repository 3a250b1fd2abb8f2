"""A small HTTP server for trying a model: TensorFlow Serving's REST API and one page."""
