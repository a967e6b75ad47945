"""Finds pictures in folders, and decodes them in limited processes."""
