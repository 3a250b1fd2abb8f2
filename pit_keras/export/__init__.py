"""A trained model in forms that other programs run, each compared with the model it came from."""
