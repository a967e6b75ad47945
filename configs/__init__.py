"""What to run: the configuration and its presets; imported as `leo_tf.configs`."""
