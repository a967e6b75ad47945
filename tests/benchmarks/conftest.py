"""Lets the tests of the peers use the golden cases of leo_tf's own tests."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[1] / "leo_tf"))
