"""What the graphs of TFLite and SavedModel share: the decoder, an array namespace and UTF-8 states in TensorFlow."""
