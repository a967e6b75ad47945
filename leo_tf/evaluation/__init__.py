"""Accuracy over episodes, with intervals and calibration."""
