"""Settings of single methods: read from a file; and their ranges in a search.

The file is a JSON object, with a field per method:

    {"leo": {"outer_lr": 3e-4, "dropout_rate": 0.5}, "maml": {"outer_lr": 1e-3}}

LEO's settings also apply to its ablations, as far as they use them, unless these have a
field of their own. Likewise a method's settings apply to METHOD@TRANSFORM.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from leo_tf.configs.rules import check_object
from leo_tf.configs.schema import GROUP_OF, Config
from leo_tf.errors import FlagError, InputError, LeoError, quoted
from leo_tf.files import read_json
from leo_tf.methods.registry import METHODS
from leo_tf.methods.variants import is_known, variant_named

LINEAR = frozenset(["dropout_rate"])  # drawn uniformly; all others log-uniformly
# Range of discriminants that METHOD@lda keeps, limited by the classes.
_DIMS = {"transform_dims": (8.0, 256.0)}
_OF_ENSEMBLES = "ensemble", "ensemble_share", "ridge_strength", "logistic_strength"


def read(
    source: Mapping[str, Mapping[str, Any]] | str, config: Config
) -> dict[str, dict[str, Any]]:
    """Returns name -> its settings, checked against `config`.

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
            found = read_json(pathlib.Path(path))
        except (OSError, ValueError) as error:
            expected = "a JSON file of settings for each method"
            raise InputError(path, expected, quoted(str(error))) from error
    names = found if isinstance(found, dict) else ()
    for name in names:
        try:
            variant_named(name)
        except FlagError as error:
            where = f"{path}: `{error.where}`"
            raise InputError(where, error.expected, error.received) from error
    others = filter(is_known, names)
    check_object(found, dict.fromkeys([*METHODS, *others]), path)
    for name, settings in found.items():
        check_object(settings, effective(name), f"{path}: `{name}`")
        try:
            config.replace(**settings)
        except LeoError as error:
            where = f"{path}: `{name}.{error.where.lstrip('-')}`"
            raise InputError(where, error.expected, error.received) from error
    return found


def of(settings: Mapping[str, dict], name: str) -> dict:
    """Returns the settings of a name, or of its method, or of the method it ablates."""
    variant = variant_named(name)
    if name in settings:
        return settings[name]
    inherited = settings.get(variant.method)
    if inherited is None:
        inherited = settings.get(variant.entry.family, {})
    used = effective(name)
    return {key: value for key, value in inherited.items() if key in used}


def with_shared(
    config: Config, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Returns name -> settings that turn the shared configuration into its own.

    Shared settings that only others of these methods can have are left out, as are
    those of features that its transform does not use. If none can have one, it stays
    and is refused.
    """
    shared, usual = config.flat(), Config().flat()
    entries = [variant_named(name).entry for name in settings]
    unused: dict[str, set[str]] = {
        name: {*config.replace(**own).features.unused} - own.keys()
        for name, own in settings.items()
    }
    unused_by_all = functools.reduce(set.intersection, unused.values())
    found = {}
    for name, own in settings.items():
        others: set[str] = unused[name] - unused_by_all
        entry = variant_named(name).entry
        if not entry.is_trained:
            others |= {"ensemble", "ensemble_share"} - own.keys()
        if not entry.mixed_precision and any(each.mixed_precision for each in entries):
            others |= {"mixed_precision"} - own.keys()
        if not entry.draws and any(each.draws for each in entries):
            others |= {"test_samples"} - own.keys()
        reset = {n: usual[n] for n in sorted(others) if shared[n] != usual[n]}
        found[name] = {**reset, **own}
    return found


def effective(name: str) -> tuple[str, ...]:
    """Returns the settings that affect a variant, except data and episodes.

    Data and episodes are the same for all methods, or they could not be compared.
    """
    variant = variant_named(name)
    known, pinned = variant.entry, variant.settings
    unused = Config().replace(**pinned).features.unused if len(pinned) > 1 else ()
    names = [*known.settings, *known.chosen]
    names += (n for n, group in GROUP_OF.items() if group == "features")
    names = [n for n in names if n not in pinned and n not in unused]
    if known.is_trained:
        names += (*known.ranges, *_OF_ENSEMBLES)
        names += (n for n, group in GROUP_OF.items() if group == "optimizer")
    return tuple(dict.fromkeys(names))


def ranges(name: str) -> Mapping[str, tuple[float, float]]:
    """Returns the ranges a search draws from, for a method or METHOD@TRANSFORM.

    These are `Method.ranges` and, for METHOD@lda, the number of discriminants.

    Raises:
      FlagError: if the method is not trained.
    """
    variant = variant_named(name)
    if not variant.entry.is_trained:
        raise FlagError("--methods", "methods that are trained", name)
    dims = _DIMS if variant.transform == "lda" else {}
    return {**variant.entry.ranges, **dims}
