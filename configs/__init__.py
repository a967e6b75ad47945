"""What to run: the configuration, its presets and its flags."""
