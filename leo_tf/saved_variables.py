"""Variables in TensorFlow's checkpoint files, by name: all of them, or none."""

import pathlib
from collections.abc import Mapping

import tensorflow as tf

from configs.errors import CheckpointError, shown

_PREFIX = "variables"


def save_variables(
    directory: pathlib.Path, variables: Mapping[str, tf.Variable]
) -> None:
    """Writes the files of a checkpoint into a directory.

    Raises:
      tf.errors.OpError: if the disk fails.
    """
    held = tf.train.Checkpoint(variables=dict(variables))
    held.write(str(directory / _PREFIX))


def restore_variables(
    directory: pathlib.Path, variables: Mapping[str, tf.Variable]
) -> None:
    """Gives variables the values of a checkpoint: all of them, or none.

    Args:
      directory: of the checkpoint.
      variables: name -> variable; may be fewer than the checkpoint holds.

    Raises:
      CheckpointError: if a variable is missing or differs in shape or type; then no
        variable has changed.
    """
    try:
        reader = tf.train.load_checkpoint(str(directory / _PREFIX))
        shapes = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
    except tf.errors.OpError as error:
        received = shown(error.message)
        raise CheckpointError(
            str(directory), "a readable checkpoint", received
        ) from error
    for name, variable in variables.items():
        mine = f"{variable.dtype.name} {variable.shape.as_list()}"
        key = _key(name)
        held = f"{types[key].name} {shapes[key]}" if key in shapes else "nothing"
        if held != mine:
            raise CheckpointError(f"{directory}: `{name}`", mine, held)
    for name, variable in variables.items():
        variable.assign(reader.get_tensor(_key(name)))


def _key(name: str) -> str:
    """The name TensorFlow's checkpoint gives to the variable held as `name`."""
    escaped = name.replace(".", "..").replace("/", ".S")
    return f"variables/{escaped}/.ATTRIBUTES/VARIABLE_VALUE"
