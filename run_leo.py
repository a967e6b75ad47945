"""Trains and evaluates LEO: `python run_leo.py --help`."""

from leo_tf.cli.main import command

if __name__ == "__main__":
    command()
