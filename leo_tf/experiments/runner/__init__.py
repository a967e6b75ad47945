"""Trains many runs at once, in worker processes here or by Ray on other machines."""
