"""Trains and evaluates LEO: `python run_leo.py --help`."""

import sys

from leo_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
