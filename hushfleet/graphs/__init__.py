"""Computation graphs for the LiteRT runtimes, made on the device from a model's layer list; no TensorFlow anywhere."""
