"""Means with 95 % intervals."""

import math
from typing import NamedTuple

import numpy as np

from leo_tf.files import finite

_NORMAL_95 = 1.959964  # two-sided 95 % quantile of N(0, 1)


class Interval(NamedTuple):
    """A mean over episodes and the half-width of its 95 % confidence interval."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.half_width:.2f}"

    def as_dict(self) -> dict[str, float | None]:
        """Returns the entry in results.json, None where it is non-finite."""
        return {"mean": finite(self.mean), "half_width_95": finite(self.half_width)}


def interval(values: np.ndarray) -> Interval:
    """Returns the mean of [E] values with its normal 95 % interval over episodes.

    A single value has an interval of unknown, here infinite, width.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), math.inf)
    error = values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(values.mean()), float(_NORMAL_95 * error))
