"""Features in, episodes out; imported as `leo_tf.data_pipeline`."""
