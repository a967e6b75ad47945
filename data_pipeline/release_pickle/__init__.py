"""Reads the release's pickles without executing anything."""
