"""Files of what is fitted to a checkpoint after training, and what that depends on."""

import json
import pathlib
from hashlib import sha256

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.dataset import Split
from leo_tf.errors import CheckpointError, InputError, shown
from leo_tf.evaluation.confidence import Confidence
from leo_tf.files import read_json
from leo_tf.methods.ensemble import Mix

CONFIDENCE, ENSEMBLE = "confidence.json", "ensemble.json"
_MOST_BYTES = 2**20  # tens of times what they take


def read_confidence(directory: pathlib.Path, step: int) -> Confidence | None:
    """Returns what was fitted to the checkpoint of a step; None if nothing was.

    Raises:
      InputError: if the file is damaged.
    """
    path = directory / CONFIDENCE
    try:
        found = Confidence.from_dict(read_json(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        hint = "Remove it: the command that trained the run makes it anew."
        expected = "what was fitted to validation episodes"
        raise InputError(str(path), expected, shown(str(error)), hint) from error
    return found if found.step == step else None


def read_mix(directory: pathlib.Path, step: int, other: str) -> Mix:
    """Returns how the checkpoint of a step is mixed with a closed form.

    Raises:
      CheckpointError: if it is not known.
    """
    path = directory / ENSEMBLE
    hint = "The command that trained the run makes it, when training has ended."
    expected = f"the ensemble of step {step} with {other}"
    try:
        found = Mix.from_dict(read_json(path, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), expected, shown(str(error)), hint) from error
    if (found.step, found.other) != (step, other):
        theirs = f"of step {found.step} with {found.other}"
        raise CheckpointError(str(path), expected, theirs, hint)
    return found


def basis_of(config: Config, split: Split, step: int) -> str:
    """Returns a digest of all that decides what is fitted to a checkpoint."""
    values = config.to_dict()
    parts = [step, split.digest, config.run.num_val_episodes, config.run.seed]
    parts += [values[group] for group in ("methods", "features", "episodes")]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
