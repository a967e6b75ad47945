"""Finds pictures, splits them by class, and decodes them in limited processes."""
