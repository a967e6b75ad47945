"""Saves and restores variables by name in TensorFlow's checkpoint files."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

import tensorflow as tf

from leo_tf.errors import CheckpointError, quoted

_PREFIX = "variables"
_PATTERNS = frozenset("*?[]{}\\")


def save_variables(
    directory: pathlib.Path, variables: Mapping[str, tf.Variable]
) -> None:
    """Writes a checkpoint's files. Raises a `tf.errors.OpError` if the disk fails."""
    tf.train.Checkpoint(variables=dict(variables)).write(str(directory / _PREFIX))


def restore_variables(
    directory: pathlib.Path, variables: Mapping[str, tf.Variable]
) -> None:
    """Restores variables from a checkpoint: all of them, or none.

    The checkpoint may hold more variables.

    Raises:
      CheckpointError: if one is missing, of another shape or type, or unreadable.
    """
    with _without_patterns(directory) as plain:
        values = {
            name: _read(plain, directory, name, variable.dtype)
            for name, variable in variables.items()
        }
    for name, variable in variables.items():
        mine, held = variable.shape.as_list(), values[name].shape.as_list()
        if held != mine:
            expected, received = (f"{variable.dtype.name} {x}" for x in (mine, held))
            raise CheckpointError(f"{directory}: `{name}`", expected, received)
    for name, variable in variables.items():
        variable.assign(values[name])


@contextlib.contextmanager
def _without_patterns(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the directory by a path that TensorFlow does not read as a pattern."""
    if _PATTERNS.isdisjoint(str(directory)):
        yield directory
        return
    with contextlib.ExitStack() as held:
        try:
            place = held.enter_context(tempfile.TemporaryDirectory())
            link = pathlib.Path(place, "checkpoint")
            link.symlink_to(directory.absolute())
        except OSError as error:
            expected = f"no {' '.join(sorted(_PATTERNS))} in it, or room for a link"
            raise CheckpointError(str(directory), expected, str(error)) from error
        yield link


def _read(
    place: pathlib.Path, directory: pathlib.Path, name: str, dtype: tf.DType
) -> tf.Tensor:
    # `tf.train.load_checkpoint` lists the content, which ends the process if the disk
    # fails to read the index.
    where = f"{directory}: `{name}`"
    # Key of the variable `name` in TensorFlow's checkpoint.
    escaped = name.replace(".", "..").replace("/", ".S")
    key = f"variables/{escaped}/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        with tf.device("CPU:0"):
            [value] = tf.raw_ops.RestoreV2(
                prefix=str(place / _PREFIX),
                tensor_names=[key],
                shape_and_slices=[""],
                dtypes=[dtype],
            )
    except tf.errors.NotFoundError as error:
        expected = f"a variable of {dtype.name}"
        raise CheckpointError(where, expected, "nothing") from error
    except tf.errors.OpError as error:
        expected = f"a readable {dtype.name}"
        raise CheckpointError(where, expected, quoted(error.message)) from error
    return value
