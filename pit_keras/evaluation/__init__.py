"""How well a model does: exact measurements on whole data sets."""
