"""Whole jobs: train, evaluate, compare, search, reproduce."""
