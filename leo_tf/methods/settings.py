"""Settings of one method each: read from a file, or drawn for a search.

The file is a JSON object, a field a method:

    {"leo": {"outer_lr": 3e-4, "dropout_rate": 0.5}, "maml": {"outer_lr": 1e-3}}

LEO's count for its ablations too, as far as they make use of them, unless they have a
field of their own.
"""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from leo_tf.configs.rules import check_object
from leo_tf.configs.schema import GROUP_OF, Config
from leo_tf.errors import FlagError, InputError, LeoError, shown
from leo_tf.files import read_json
from leo_tf.methods.registry import METHODS, is_known, method_named

if TYPE_CHECKING:
    from numpy.random import Generator

# What is compared, and searched for, unless others are named.
_DEFAULT_METHODS = "leo generator meta_sgd maml ridge logistic centroid"
DEFAULT_METHODS = tuple(_DEFAULT_METHODS.split())
_MOST_BYTES = 2**20
LINEAR = frozenset(["dropout_rate"])  # drawn evenly; all others in their logarithm
_DIGITS = 3


def read(
    source: Mapping[str, Mapping[str, Any]] | str, config: Config
) -> dict[str, dict[str, Any]]:
    """Returns method -> its settings, checked against the `config` that they change.

    `source` is the settings, or the path of a file of them; "" for none.

    Raises:
      InputError: if the file cannot be read, or has a field that is unknown or wrong.
    """
    if not source:
        return {}
    found: Any
    if isinstance(source, Mapping):
        found, path = {m: dict(s) for m, s in source.items()}, "settings"
    else:
        path = source
        try:
            found = read_json(pathlib.Path(path), _MOST_BYTES)
        except (OSError, ValueError) as error:
            expected = "a JSON file of settings for each method"
            raise InputError(path, expected, shown(str(error))) from error
    others = filter(is_known, found) if isinstance(found, dict) else ()
    check_object(found, dict.fromkeys([*METHODS, *others]), path)
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
    inherited = settings.get(method_named(method).family, {})
    used = effective(method)
    return {name: value for name, value in inherited.items() if name in used}


def effective(method: str) -> tuple[str, ...]:
    """The settings that make a difference to a method, but for data and episodes.

    Those are the same for all methods, or they could not be compared.
    """
    known = method_named(method)
    names = [*known.settings, *known.chosen]
    names += (n for n, group in GROUP_OF.items() if group == "features")
    if known.is_trained:
        names += (*known.ranges, "ensemble", "ensemble_share")
        names += (n for n, group in GROUP_OF.items() if group == "optimizer")
    return tuple(dict.fromkeys(names))


def ranges(method: str) -> Mapping[str, tuple[float, float]]:
    """`Method.ranges`, of a method that is trained; or else raises a FlagError."""
    known = method_named(method)
    if not known.is_trained:
        raise FlagError("--methods", "methods that are trained", method)
    return known.ranges


def draw(method: str, seed: int, trial: int) -> dict[str, float]:
    """The settings of a trial; those of trial 0 are the configuration's own.

    They depend on nothing but the arguments, so a search can be made longer.

    Raises:
      FlagError: if the method is not trained.
    """
    wanted = ranges(method)
    if trial == 0:
        return {}
    from numpy.random import default_rng  # not before: the flags read this module

    random = default_rng([seed, trial])
    # All of them, so that a method and its ablations get the same: no luck is between.
    family = {**ranges(method_named(method).family or method), **wanted}
    drawn = {name: _drawn(random, name, *limits) for name, limits in family.items()}
    return {name: drawn[name] for name in wanted}


def _drawn(random: "Generator", name: str, low: float, high: float) -> float:
    share, is_linear = random.random(), name in LINEAR
    value = low + share * (high - low) if is_linear else low * (high / low) ** share
    if isinstance(Config().flat()[name], int):
        return round(value)
    return float(f"{value:.{_DIGITS}g}")
