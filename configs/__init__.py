"""Configurations and presets, imported as `leo_tf.configs`."""
