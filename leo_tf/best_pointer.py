"""The small file that says which checkpoint validated best; replaced atomically."""

import pathlib

from configs.errors import CheckpointError, shown
from data_pipeline.whole_file import write_file
from leo_tf.json_file import read_json, to_json

_MOST_BYTES = 2**16


def write(path: pathlib.Path, step: int, directory: str) -> None:
    """Names the checkpoint of `step`, in `directory`, as the best one.

    Raises:
      DiskError: if that fails; the old one is still named.
    """
    write_file(path, to_json({"step": step, "directory": directory}))


def read(path: pathlib.Path) -> int | None:
    """Step of the best checkpoint; None if no validation has named one yet.

    Raises:
      CheckpointError: if the file is damaged, or the disk fails to read it.
    """
    try:
        pointer = read_json(path, _MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, shown(str(error))) from error
    step = pointer.get("step") if isinstance(pointer, dict) else None
    if type(step) is not int:
        raise _damaged(path, f"step {shown(step)}")
    return step


def _damaged(path: pathlib.Path, received: str) -> CheckpointError:
    return CheckpointError(str(path), 'JSON with a "step"', received)
