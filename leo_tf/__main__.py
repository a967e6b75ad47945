"""Runs the command line: `python -m leo_tf` is the same as `leo-tf`."""

import sys

from leo_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
