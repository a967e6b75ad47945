"""Reads what a run left behind, for comparisons bit for bit."""

import functools
import hashlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset as datasets
from leo_tf.evaluation import validation_tuning as choices
from leo_tf.methods.registry import method_of


def listing(directory: pathlib.Path) -> dict:
    """Everything below a directory: time of change and content."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


def manifest_of(workdir: pathlib.Path, step: int) -> dict:
    """Returns the manifest of a step's checkpoint."""
    path = workdir / "checkpoints" / f"step-{step:08d}" / "manifest.json"
    return json.loads(path.read_text())


def values_of(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Variable's path -> value in the checkpoint of a step."""
    path = workdir / "checkpoints" / f"step-{step:08d}" / "variables"
    reader = tf.train.load_checkpoint(str(path))
    return {
        key.split("/")[1].replace(".S", "/").replace("..", "."): reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith("variables/")
    }


def outcome(workdir: pathlib.Path, step: int) -> dict:
    """All that training comes to, but for the time it took.

    Means while training are left out too: they are sums of float32 in groups whose
    size depends on the clock.
    """
    progress = manifest_of(workdir, step)["progress"]
    return {
        "variables": {n: v.tobytes() for n, v in values_of(workdir, step).items()},
        "validations": [
            {key: record[key] for key in record if not key.startswith("train_")}
            for record in progress["history"]
        ],
        **{name: progress[name] for name in ("step", "best_step", "best_accuracy")},
        "best": (workdir / "best" / "checkpoint.json").read_text(),
    }


def results_of(workdir: pathlib.Path) -> dict:
    """results.json, read strictly: NaN and Infinity are no JSON."""

    def refuse(token):
        pytest.fail(f"{token} is no JSON")

    text = (workdir / "results.json").read_text()
    return json.loads(text, parse_constant=refuse)


def config_of(workdir: pathlib.Path) -> Config:
    """The configuration of a run, with what it chose."""
    return Config.from_dict(json.loads((workdir / "config.json").read_text()))


def chosen_on(workdir: pathlib.Path, split: str) -> dict[str, float]:
    """Returns the settings that a run's method chooses on a split's first episodes."""
    config = config_of(workdir)
    names = method_of(config).chosen
    config = config.replace(**dict.fromkeys(names))
    table = datasets.load(config, [split])[split]
    count = config.run.num_val_episodes
    episodes = functools.partial(datasets.evaluation_episodes, config, table, count)
    chosen = choices.choose(config, table.embedding_size, episodes).flat()
    return {name: chosen[name] for name in names}
