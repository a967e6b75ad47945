"""Readers of feature files, one per format. Every file is treated as hostile."""
