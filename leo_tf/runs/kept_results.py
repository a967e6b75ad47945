"""Reads back what a finished comparison has measured, if it was the same comparison."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from leo_tf.configs.schema import Config
from leo_tf.evaluation.calibration import Bins
from leo_tf.evaluation.confidence import OpenSet
from leo_tf.evaluation.intervals import Interval
from leo_tf.evaluation.results import Calibration
from leo_tf.files import read_json, to_json

_MOST_BYTES = 1 << 24


class Measured(NamedTuple):
    """Fields of a `Row` that a test measures; its run holds the others."""

    accuracy: Interval
    difference: Interval | None
    calibration: Calibration
    diverged: bool
    seconds_to_adapt: float
    open_set: OpenSet | None = None


class Kept(NamedTuple):
    """Measurements by method, steps (best, last) of its run, and `Comparison.lead`."""

    measured: dict[str, Measured]
    steps: dict[str, tuple[int, int]]
    lead: Interval | None


def read_kept(
    path: pathlib.Path,
    config: Config,
    data: Mapping[str, str],
    methods: Mapping[str, Mapping[str, object]],
) -> Kept | None:
    """Returns what results.json of a comparison holds; None if it is of another job.

    Args:
      config: settings of all methods. Another path of the same data is no difference.
      data: digests of the splits.
      methods: name -> settings of its own, as a row shows them.
    """
    try:
        values = read_json(path, _MOST_BYTES)
        rows = values["methods"]
        own = {name: row["settings_of_its_own"] for name, row in rows.items()}
        found = _without_path(values["config"]), values["data"], own
        if found != _as_read((_without_path(config.to_dict()), data, methods)):
            return None
        return Kept(
            {name: _measured(row) for name, row in rows.items()},
            {n: (row["best_step"], row["steps_trained"]) for n, row in rows.items()},
            _interval(values["lead"]),
        )
    # Missing, damaged, or of another version: the test is repeated.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _as_read(values: tuple) -> tuple:
    return tuple(json.loads(to_json(values)))


def _without_path(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "data": {**config["data"], "data_path": ""}}


def _measured(row: Mapping[str, Any]) -> Measured:
    accuracy = _interval(row["accuracy"])
    if accuracy is None:
        raise ValueError("no accuracy")
    return Measured(
        accuracy=accuracy,
        difference=_interval(row["difference"]),
        calibration=_calibration(row),
        diverged=row["diverged"],
        seconds_to_adapt=row["seconds_to_adapt_to_a_task"],
    )


def _calibration(row: Mapping[str, Any]) -> Calibration:
    bins = Bins(**{name: tuple(sums) for name, sums in row["bins"].items()})
    nll = _interval(row["nll"]) or Interval(math.nan, math.inf)
    found = Calibration(nll, _number(row["ece"]), bins)
    if "nll_scaled" not in row:
        return found
    scaled = _interval(row["nll_scaled"]), _number(row["ece_scaled"])
    return found._replace(
        temperature=row["temperature"], scaled_nll=scaled[0], scaled_ece=scaled[1]
    )


def _interval(values: Mapping[str, Any] | None) -> Interval | None:
    """Returns an interval from what its `as_dict` wrote."""
    if values is None:
        return None
    width = values["half_width_95"]
    return Interval(_number(values["mean"]), math.inf if width is None else width)


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN
