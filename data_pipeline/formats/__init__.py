"""Readers of feature files of one format each; every file is taken for hostile."""
