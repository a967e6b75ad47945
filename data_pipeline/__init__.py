"""Reads features and draws episodes, imported as `leo_tf.data_pipeline`."""
