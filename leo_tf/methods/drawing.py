"""Draws settings for the trials of a search, with Optuna.

Optuna is the extra `search`, and is imported when a trial is drawn.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leo_tf.configs.schema import GROUP_OF, GROUPS
from leo_tf.errors import FlagError
from leo_tf.methods.settings import LINEAR, ranges
from leo_tf.methods.variants import variant_named

SAMPLERS = ("random", "tpe", "qmc")
# Trials that TPE draws at a time from earlier results, whatever --jobs is.
BATCH = 4
# The first trials are random, because TPE needs earlier results.
_RANDOM_FIRST = 8
_DIGITS = 3


def check_installed(sampler: str) -> None:
    """Raises a FlagError if a package that draws the trials is not installed."""
    needed = ["optuna", *(["scipy"] if sampler == "qmc" else [])]
    for name in needed:
        if importlib.util.find_spec(name) is None:
            hint = "pip install 'leo-tf[search]' installs it."
            where = "--sampler=qmc" if name == "scipy" else "--mode=search"
            expected = f"the package {name}, to draw trials with"
            raise FlagError(where, expected, "none", hint)


def draw(
    name: str,
    sampler: str,
    seed: int,
    numbers: range,
    known: Sequence[tuple[Mapping[str, float], float | None]] = (),
) -> list[dict[str, float]]:
    """Draws the settings of trials 1, 2, ... of a method, or METHOD@TRANSFORM.

    With "random" and "qmc" they depend on (seed, number) only, so that a search can be
    extended; with "tpe" they depend on `known` too. With "random", a method, its
    ablations, and the same method on several transforms get the same draws, so that
    chance does not favour one of them.

    Args:
      name: METHOD or METHOD@TRANSFORM.
      sampler: one of `SAMPLERS`.
      seed: seed of the draws.
      numbers: numbers of the requested trials.
      known: for "tpe", settings and result of each earlier trial; None as the result
        of a diverged one.
    """
    import optuna

    wanted, method = ranges(name), variant_named(name)
    family = {**ranges(method.entry.family or method.method), **wanted}
    space = {key: distribution(key, *limits) for key, limits in family.items()}
    if sampler != "random":
        space = {key: space[key] for key in wanted}
    with quietly():
        found = _asked(optuna, sampler, seed, numbers, space, known)
    return [{key: _rounded(each[key], wanted[key]) for key in wanted} for each in found]


def _asked(optuna, sampler, seed, numbers, space, known) -> list[dict[str, Any]]:
    study = optuna.create_study(direction="maximize")
    for settings, value in known if sampler == "tpe" else ():
        study.add_trial(frozen(settings, value, space))
    if sampler == "qmc":
        first = {key: each.low for key, each in space.items()}
        study.add_trial(frozen(first, 0.0, space))  # so that it knows them
        study.sampler = optuna.samplers.QMCSampler(scramble=True, seed=seed % 2**32)
        every = [study.ask(space).params for _ in range(1, numbers.stop)]
        return [every[number - 1] for number in numbers]
    found = []
    for number in numbers:
        own = _seed(seed, number)
        if sampler == "random":
            study.sampler = optuna.samplers.RandomSampler(seed=own)
        else:
            study.sampler = optuna.samplers.TPESampler(
                seed=own,
                multivariate=True,
                constant_liar=True,
                n_startup_trials=_RANDOM_FIRST,
            )
        found.append(study.ask(space).params)
    return found


def _seed(seed: int, number: int) -> int:
    """Returns a seed of 32 bits, which the samplers accept, for a trial."""
    from numpy.random import SeedSequence

    return int(SeedSequence([seed % 2**64, number]).generate_state(1)[0])


def distribution(name: str, low: float, high: float) -> Any:
    """Returns Optuna's distribution of a setting."""
    import optuna

    is_log = name not in LINEAR
    if GROUPS[GROUP_OF[name]].__dataclass_fields__[name].metadata["rule"].kind is int:
        whole = int(low), int(high)
        return optuna.distributions.IntDistribution(*whole, log=is_log)
    return optuna.distributions.FloatDistribution(low, high, log=is_log)


def _rounded(value: float, limits: tuple[float, float]) -> float:
    if isinstance(value, int):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), limits[0]), limits[1])


def frozen(
    settings: Mapping[str, float], value: float | None, space: Mapping[str, Any]
) -> Any:
    """Returns Optuna's record of an ended trial; without a value, it diverged."""
    import optuna

    ended = optuna.trial.TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=ended if value is not None else optuna.trial.TrialState.FAIL,
        params=dict(settings),
        distributions=containing(settings, space),
        value=value,
    )


def containing(
    settings: Mapping[str, float], space: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns distributions of settings, widened to include the given values."""
    distributions = {}
    for name, mine in settings.items():
        like = space[name]
        if not like.low <= mine <= like.high:  # as given, beyond what is drawn from
            kind = type(like)
            low, high = min(mine, like.low), max(mine, like.high)
            like = kind(low, high, log=like.log and low > 0)
        distributions[name] = like
    return distributions


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hides Optuna's log messages and its warnings about experimental features."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
