"""Files with the results of fitting a checkpoint after training."""

import json
import pathlib
from hashlib import sha256

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline.dataset import Split
from leo_tf.errors import CheckpointError, InputError, quoted
from leo_tf.evaluation.confidence import Confidence
from leo_tf.files import read_json
from leo_tf.methods.ensemble import Mix

CONFIDENCE, ENSEMBLE = "confidence.json", "ensemble.json"


def read_confidence(directory: pathlib.Path, step: int) -> Confidence | None:
    """Returns the confidence fitted to the checkpoint of a step; None without one.

    Raises:
      InputError: if the file is damaged.
    """
    path = directory / CONFIDENCE
    try:
        found = Confidence.from_dict(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        hint = "Remove it, and the command that trained the run writes it again."
        expected = "the confidence fitted to validation episodes"
        raise InputError(str(path), expected, quoted(str(error)), hint) from error
    return found if found.step == step else None


def read_mix(directory: pathlib.Path, step: int, other: str) -> Mix:
    """Returns the mix of a step's checkpoint with a closed form.

    Raises:
      CheckpointError: if it is missing, damaged or of another step.
    """
    path = directory / ENSEMBLE
    hint = "The command that trained the run writes it after training."
    expected = f"the ensemble of step {step} with {other}"
    try:
        found = Mix.from_dict(read_json(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), expected, quoted(str(error)), hint) from error
    if (found.step, found.other) != (step, other):
        theirs = f"of step {found.step} with {found.other}"
        raise CheckpointError(str(path), expected, theirs, hint)
    return found


def basis_of(config: Config, split: Split, step: int) -> str:
    """Returns a digest of everything that a fit to a checkpoint depends on."""
    values = config.to_dict()
    parts = [step, split.digest, config.run.num_val_episodes, config.run.seed]
    groups = "model", "methods", "features", "episodes"
    parts += [config.run.mixed_precision, config.data.drop_small_classes]
    parts += [values[group] for group in groups]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
