"""Shared by the graphs of TFLite and SavedModel: the decoder, an array namespace and UTF-8 states in TensorFlow."""
