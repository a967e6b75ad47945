"""export.json: the metadata, signatures, data and accuracy of an exported model."""

import datetime
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from leo_tf.configs.schema import GROUP_OF, Config
from leo_tf.environment import versions
from leo_tf.errors import InputError, quoted
from leo_tf.evaluation.confidence import Confidence
from leo_tf.export.request_checks import Limits
from leo_tf.export.signatures import described
from leo_tf.files import read_json
from leo_tf.methods.ensemble import Mix
from leo_tf.methods.registry import draws, with_transform
from leo_tf.runs.checkpoints import Checkpoint

# Raise it if a field that readers rely on changes.
_FORMAT = 1
_OF_TEST = ("episodes", "interval", "test")
# Origin of the embedded data set's features.
_EMBEDDED_KIND = (
    "leo_tf.data_pipeline.glyphs.hog.hog of pictures like those of "
    "leo_tf.data_pipeline.glyphs.drawing"
)


def manifest(
    workdir: pathlib.Path,
    config: Config,
    best: Checkpoint,
    limits: Limits,
    export_format: str,
    files: dict[str, str],
    signatures: Sequence[str],
    fitted: Confidence | None = None,
    mix: Mix | None = None,
    pictures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the content of export.json for a checkpoint of the run in `workdir`.

    `export_format` is "saved_model" or "tflite", `files` is path -> SHA-256 of the
    files beside it, and `signatures` are the names of its signatures. `fitted`, `mix`
    and `pictures` (the `metadata` of its encoder) are None if the export has none.

    Raises:
      CheckpointError: if the checkpoint does not record its data.
      InputError: if results.json is damaged.
    """
    now, data = datetime.datetime.now(datetime.timezone.utc), config.data
    return {
        "format": _FORMAT,
        "export_format": export_format,
        "method": config.methods.method,
        "embedding_size": limits.embedding_size,
        "embedding": _EMBEDDED_KIND
        if data.is_embedded
        else best.manifest.get("embedding"),
        "pictures": pictures,
        "parameters_per_class": limits.parameters or None,
        "way": limits.way,
        "max_classes": limits.max_classes,
        "max_support": limits.max_support,
        "signatures": described(limits, signatures, fitted is not None),
        "fitted_on_validation": fitted and _in_short(fitted),
        "ensemble": mix and mix.as_dict(),
        "trained_on": {
            "dataset_name": data.dataset_name,
            "source": data.data_path or "embedded",
            "train_on_val": data.train_on_val,
            "digests": best.entry("data", dict),
            "classes": best.manifest.get("classes", {}),
        },
        "step": best.step,
        "test_accuracy": _test_accuracy(workdir, config, best),
        "versions": versions(),
        "created": now.isoformat(timespec="seconds"),
        "files": files,
        "config": config.to_dict(),
    }


def _in_short(fitted: Confidence) -> dict[str, Any]:
    """Returns the fields for readers. The tables are in the graph."""
    names = "episodes", "way", "shot", "temperature", "score", "auroc"
    return {name: getattr(fitted, name) for name in names}


def _trained(config: Config) -> tuple:
    return config.methods, config.model, config.features


def _test_accuracy(
    workdir: pathlib.Path, config: Config, best: Checkpoint
) -> dict[str, Any] | None:
    """Returns the accuracy in results.json if it is of this checkpoint, else None.

    A run of a comparison was tested by that, whose results.json is beside the run.
    """
    path = workdir / "results.json"
    try:
        results = read_json(path)
        if results["step"] != best.step or results["data"] != best.entry("data", dict):
            return None
        tested = Config.from_dict(results["config"], source=str(path))
        if _trained(tested) != _trained(config):
            return None
        found = results["accuracy"][config.methods.method]
        return _tested(results, found, found, tested.run.test_samples)
    except FileNotFoundError:
        return _compared(workdir, config, best)
    except (OSError, ValueError, KeyError, TypeError) as error:
        received = quoted(f"{type(error).__name__}: {error}")
        hint = "Remove it, or train again: the same command tests and writes it."
        raise InputError(str(path), "the results of a run", received, hint) from error


def _compared(
    workdir: pathlib.Path, config: Config, best: Checkpoint
) -> dict[str, Any] | None:
    """Returns the accuracy in the comparison's results if it is of this checkpoint."""
    path = workdir.parent / "results.json"
    try:
        results = read_json(path)
        row = results["methods"][workdir.name]
        if (row["best_step"], results["data"]) != (best.step, best.entry("data", dict)):
            return None
        own = {**row["settings_of_its_own"], "method": config.methods.method}
        tested = Config.from_dict(results["config"], str(path)).replace(**own)
        if _others(with_transform(tested), config, row["chosen_on_validation"]):
            return None
        samples = tested.run.test_samples if draws(config) else 0
        return _tested(results, row["accuracy"], row, samples)
    # Not tested: training is running, or was stopped. Or it is of another program.
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tested(
    results: dict, accuracy: dict, calibration: dict, test_samples: int
) -> dict[str, Any]:
    """Returns accuracy and calibration of a method, and how it was tested."""
    found = {name: accuracy[name] for name in ("mean", "half_width_95")}
    found |= {n: calibration[n] for n in ("ece", "ece_scaled") if n in calibration}
    found |= {name: results[name] for name in _OF_TEST}
    return found | {"test_samples": test_samples}


def _others(tested: Config, config: Config, chosen: Mapping[str, Any]) -> list[str]:
    """Returns the settings of the method that differ from the tested ones.

    None is one that a comparison sets aside because the method has no use for it.
    """
    return [
        name
        for name, theirs, mine in tested.differences(config)
        if GROUP_OF.get(name) in ("methods", "model", "features")
        and mine is not None
        and chosen.get(name) != mine
    ]
