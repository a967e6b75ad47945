"""Runs the command line: `python -m leo_tf` is the same as `leo-tf`."""

from leo_tf.cli.main import command

if __name__ == "__main__":
    command()
