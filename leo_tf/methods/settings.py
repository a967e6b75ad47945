"""Settings of one method each: read from a file, or drawn for a search.

The file is a JSON object, a field a method:

    {"leo": {"outer_lr": 3e-4, "dropout_rate": 0.5}, "maml": {"outer_lr": 1e-3}}

LEO's count for its ablations too, as far as they make use of them, unless they have a
field of their own.
"""

import pathlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from leo_tf.configs.rules import check_object
from leo_tf.configs.schema import GROUP_OF, Config
from leo_tf.errors import FlagError, InputError, LeoError, shown
from leo_tf.files import read_json
from leo_tf.methods.registry import METHODS

_MOST_BYTES = 2**20
# What makes another method is no setting of one.
_OTHER_METHODS = ("deterministic", "random_prior")
# What LEO and its ablations make no use of, or pin.
_IDLE = MappingProxyType(
    {
        "leo": (),
        "leo_no_finetuning": ("finetuning_unroll_length", "finetuning_lr_init"),
        "leo_deterministic": ("kl_weight",),
        "leo_random_prior": ("kl_weight", "encoder_penalty_weight"),
        "generator_finetuning": (
            *("inner_unroll_length", "inner_lr_init"),
            "encoder_penalty_weight",
        ),
        "generator": (
            *("inner_unroll_length", "inner_lr_init", "encoder_penalty_weight"),
            *("finetuning_unroll_length", "finetuning_lr_init"),
        ),
    }
)
_GRADIENT_METHODS = ("maml", "meta_sgd")
_OF_GRADIENT_METHODS = ("adaptation_steps", "adaptation_lr_init", "first_order")

# The six names that the original release tuned, and from where to where: its own four
# settings (`configs/presets.py`), widened to features that need more, or less, of them.
LEO_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "outer_lr": (1e-4, 3e-3),
        "l2_penalty_weight": (1e-10, 1e-6),
        "orthogonality_penalty_weight": (1e-3, 1.0),
        "dropout_rate": (0.1, 0.7),
        "kl_weight": (1e-3, 3.0),
        "encoder_penalty_weight": (1e-9, 1e-3),
    }
)
# MAML and Meta-SGD have no penalties, but a first inner rate that matters.
GRADIENT_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"outer_lr": (1e-4, 3e-2), "adaptation_lr_init": (1.0, 100.0)}
)
LINEAR = frozenset(["dropout_rate"])  # drawn evenly; all others in their logarithm
_DIGITS = 3


def read(path: str, config: Config) -> dict[str, dict]:
    """Method -> its settings, checked; empty without a path.

    Args:
      path: of the file, or "".
      config: what the settings change.

    Raises:
      InputError: if the file cannot be read, or has a field that is unknown or wrong.
    """
    if not path:
        return {}
    try:
        found = read_json(pathlib.Path(path), _MOST_BYTES)
    except (OSError, ValueError) as error:
        expected = "a JSON file of settings for each method"
        raise InputError(path, expected, shown(str(error))) from error
    check_object(found, METHODS, path)
    for method, settings in found.items():
        check_object(settings, effective(method), f"{path}: `{method}`")
        try:
            config.replace(**settings)
        except LeoError as error:
            where = f"{path}: `{method}.{error.where.lstrip('-')}`"
            raise InputError(where, error.expected, error.received) from error
    return found


def of(settings: Mapping[str, dict], method: str) -> dict:
    """Those of one method, or else of the method whose ablation it is."""
    if method in settings:
        return settings[method]
    inherited = settings.get(METHODS[method].family, {})
    used = effective(method)
    return {name: value for name, value in inherited.items() if name in used}


def effective(method: str) -> tuple[str, ...]:
    """The settings that make a difference to a method, but for data and episodes.

    Those are the same for all methods, or they could not be compared.
    """
    optimizer = tuple(n for n, group in GROUP_OF.items() if group == "optimizer")
    if method in _IDLE:
        model = (n for n, group in GROUP_OF.items() if group == "model")
        unused = _IDLE[method] + _OTHER_METHODS
        return (*(name for name in model if name not in unused), *optimizer)
    if method in _GRADIENT_METHODS:
        return _OF_GRADIENT_METHODS + optimizer
    return METHODS[method].chosen


def ranges(method: str) -> Mapping[str, tuple[float, float]]:
    """Setting -> from where to where a search draws it.

    Raises:
      FlagError: if the method is not trained.
    """
    if not METHODS[method].is_trained:
        raise FlagError("--methods", "methods that are trained", method)
    all_ranges = LEO_RANGES if METHODS[method].family == "leo" else GRADIENT_RANGES
    used = effective(method)
    return {name: limits for name, limits in all_ranges.items() if name in used}


def draw(method: str, seed: int, trial: int) -> dict[str, float]:
    """The settings of a trial; those of trial 0 are the configuration's own.

    They depend on nothing but the arguments, so a search can be made longer.

    Raises:
      FlagError: if the method is not trained.
    """
    wanted = ranges(method)
    if trial == 0:
        return {}
    random = np.random.default_rng([seed, trial])
    # All of them, so that a method and its ablations get the same: no luck is between.
    family = ranges(METHODS[method].family or method)
    drawn = {name: _drawn(random, name, *limits) for name, limits in family.items()}
    return {name: drawn[name] for name in wanted}


def _drawn(random: np.random.Generator, name: str, low: float, high: float) -> float:
    share = random.random()
    if name in LINEAR:
        value = low + share * (high - low)
    else:
        value = low * (high / low) ** share
    return float(f"{value:.{_DIGITS}g}")
