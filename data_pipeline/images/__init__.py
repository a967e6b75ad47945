"""Finds pictures in folders, splits their classes, decodes in limited processes."""
