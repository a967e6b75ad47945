"""Tunes unset settings of methods on validation episodes, without training."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.configs.settings import FeatureConfig
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.pipeline import EpisodesByRow, FeatureTable, gather
from leo_tf.evaluation.calibration import best_temperature
from leo_tf.evaluation.evaluate import collect, evaluate, make_scorer
from leo_tf.evaluation.intervals import interval
from leo_tf.evaluation.open_episodes import answers, open_episodes
from leo_tf.methods.ensemble import Mix
from leo_tf.methods.inductive.linear import LinearRegression
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import build, ensemble, method_of, other_config
from leo_tf.methods.transform_fitting import Statistics, check_can_fit, with_classes
from leo_tf.methods.transforms import Transform
from leo_tf.model.learner import AnyLearner, Learner, adapt_and_score
from leo_tf.model.losses import accuracy, cross_entropy

# Values tried on the validation episodes for settings that are not given.
SHARES = tuple(i / 20 for i in range(21))
STRENGTHS = tuple(10.0 ** (i / 2) for i in range(-6, 5))  # 0.001 to 100
# The values of Ziko et al., 2020, section 4.
LAPLACIAN_WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5)
SCALES = tuple(10.0 ** (i / 8) for i in range(-8, 25))  # 0.1 to 1000
# Discriminants and shrinkages. On a tie the first is taken.
_DIMS = (8, 16, 32, 64, 128, 256)
_SHRINKAGES = (0.9, 0.5, 0.1, 0.01, 0.001)
_USUAL_DIMS, _USUAL_SHRINKAGE = 64, 0.1
# Discriminants tried by short training runs of a trained method, and their steps. Even
# shorter ones prefer too few dims (docs/results.md), so a training run of less than ten
# times as many steps tries nothing.
_TRAINED_DIMS = (32, 64, 128, 256)
SHORT_STEPS, _MUCH_LONGER = 1000, 10
# With fewer validation classes than this, the best value is best by chance.
_ENOUGH_CLASSES = 10
_TRIED_ON = 300  # validation episodes


class Fitted(NamedTuple):
    """A fitted feature transform and its settings."""

    features: FeatureConfig  # including the chosen values
    transform: Transform


def fit_transform(
    config: Config,
    splits: Mapping[str, Split],
    compare: Callable[[list[Fitted]], list[float]] | None = None,
) -> Fitted:
    """Fits the feature transform to the training classes.

    It includes means and covariances of the transformed classes for methods that need
    them.

    Args:
      config, splits: settings and data of the run.
      compare: returns the validation accuracies of a trained method, after
        `SHORT_STEPS` of training on each transform, or NaN where it diverged. Without
        it, such a method gets 64 discriminants.

    Raises:
      InputError: see `Statistics`, `check_can_fit` and `with_classes`.
    """
    table = splits["train"].table
    if config.features.feature_transform == "none":
        size = table.features.shape[1]
        same = Transform(1.0, np.zeros(size), np.zeros([0, 0]))
        fitted = Fitted(config.features, same)
    else:
        fitted = _fit_features(config, splits, compare)
    if method_of(config).knows_classes:
        known = with_classes(fitted.transform, table)
        fitted = fitted._replace(transform=known)
    return fitted


def needs_training(config: Config, splits: Mapping[str, Split]) -> bool:
    """Tells whether the number of discriminants is chosen by short training runs.

    That takes a trained method on `lda`, a number that is not given, and training that
    is long itself. With few validation classes, or if these are trained on, choosing
    would mislead.
    """
    if config.run.num_steps < _MUCH_LONGER * SHORT_STEPS:
        return False
    features, method = config.features, method_of(config)
    is_open = features.feature_transform == "lda" and features.transform_dims is None
    fits = method.is_trained and not method.knows_classes
    return is_open and fits and not _is_misleading(config, splits["val"])


def _is_misleading(config: Config, val: Split) -> bool:
    """Tells whether the validation classes are too few to choose on, or trained on."""
    return len(val.class_names) < _ENOUGH_CLASSES or config.data.train_on_val


def _fit_features(config: Config, splits: Mapping[str, Split], compare) -> Fitted:
    """Fits a feature transform of another kind than "none".

    Unset values are tuned by nearest centroid on the first validation episodes. A
    trained method needs more dims than nearest centroid does: then the shrinkage is
    tuned for 64, or as many as there are, and the dims by short training runs (see
    `needs_training`) or not at all. With few validation classes, or if these are
    trained on, nothing is tuned: the values are 64 and a shrinkage of 0.1. On a tie the
    fewest dims are taken, then the most shrinkage.
    """
    features, val = config.features, splits["val"]
    check_can_fit(features.feature_transform, splits["train"].table)
    statistics = Statistics(splits["train"].table, features.feature_power)
    most = statistics.most_dims
    few = _is_misleading(config, val)
    dims = (*(d for d in _DIMS if d < most), most)
    if few or method_of(config).is_trained:
        dims = (min(_USUAL_DIMS, most),)
    tried = {
        "transform_dims": dims,
        "transform_shrinkage": (_USUAL_SHRINKAGE,) if few else _SHRINKAGES,
    }
    given = dataclasses.asdict(features)
    tried |= {name: (given[name],) for name in tried if given[name] is not None}
    values = itertools.product(*(tried[name] for name in features.chosen))
    options = [config.replace(**dict(zip(features.chosen, each))) for each in values]
    transforms = [
        statistics.transform(
            f.feature_transform, f.transform_dims, f.transform_shrinkage or 0.0
        )
        for f in (option.features for option in options)
    ]
    best = 0
    if len(options) > 1:
        count = min(_TRIED_ON, config.run.num_val_episodes)
        episodes = dataset.evaluation_episodes(config, val, count, together=True)
        best = int(np.argmax(_centroid_accuracies(transforms, episodes)))
    fitted = Fitted(options[best].features, transforms[best])
    if compare is None or not needs_training(config, splits):
        return fitted
    return _fit_dims(statistics, fitted.features, compare)


def _fit_dims(statistics: Statistics, features: FeatureConfig, compare) -> Fitted:
    """Fits the discriminants whose number is best after a short training run."""
    options, shrinkage = list[Fitted](), features.transform_shrinkage or 0.0
    for dims in dict.fromkeys(min(d, statistics.most_dims) for d in _TRAINED_DIMS):
        chosen = dataclasses.replace(features, transform_dims=dims)
        options.append(Fitted(chosen, statistics.transform("lda", dims, shrinkage)))
    accuracies = np.array(compare(options) if len(options) > 1 else [1.0])
    if np.isnan(accuracies).all():  # all diverged, as the training is going to
        dims = min(_USUAL_DIMS, statistics.most_dims)
        return next(o for o in options if o.features.transform_dims == dims)
    return options[int(np.nanargmax(accuracies))]


def _centroid_accuracies(
    transforms: Sequence[Transform], episodes: EpisodesByRow
) -> list[float]:
    """Returns the mean accuracy of nearest centroid after each transform.

    The whole table is transformed once, because episodes share rows.
    """
    centroid, batches, table = NearestCentroid(), list(episodes.rows), episodes.table

    @tf.function(autograph=False)
    def right(features, rows):
        episode = gather(FeatureTable(features, table.index), rows)
        logits = adapt_and_score(centroid, episode)[1]
        return accuracy(logits, episode.query_labels)  # [B]

    def mean(transform):
        features = transform(table.lookup(tf.range(table.shape[0])))  # [rows, d]
        found = [right(features, rows).numpy() for rows in batches]
        return float(np.concatenate(found).mean(dtype=np.float64))

    return [mean(transform) for transform in transforms]


def choose(
    config: Config,
    embedding_size: int,
    episodes: Callable[[], EpisodesByRow],
    transform: Transform | None = None,
    console: Console = SILENT,
) -> Config:
    """Tunes unset settings of the method on the validation episodes.

    Settings that accuracy depends on, such as the strength of a penalty, are tuned
    first, by accuracy. Then the scale of the scores is tuned by negative log-
    likelihood.

    Returns:
      `config` with all that the method has in `Method.chosen` set.
    """
    missing = [n for n in method_of(config).chosen if config.flat()[n] is None]
    known = {"score_scale": (1.0,), "laplacian_weight": LAPLACIAN_WEIGHTS}
    built = embedding_size, transform
    for name in sorted(missing, key="score_scale".__eq__):  # the scale comes last
        tried = known.get(name, STRENGTHS)
        options = {t: config.replace(**{"score_scale": 1.0, name: t}) for t in tried}
        total = config.run.num_val_episodes * len(tried)
        with console.progress(f"choose {name}", total, unit="episodes") as line:
            if name == "score_scale":
                learner = build(options[1.0], *built)
                best = _best_scale(learner, episodes(), line.advance)
            else:
                best = _most_accurate(options, built, episodes(), line.advance)
        config = config.replace(**{name: best})
    return config


def fit_ensemble(
    learner: Learner,
    config: Config,
    split: Split,
    step: int,
    basis: str = "",
    transform: Transform | None = None,
    console: Console = SILENT,
) -> Mix:
    """Builds the ensemble of a trained method and the configured closed form.

    The closed form's settings are tuned first, as usual, then temperatures by negative
    log-likelihood, then the share by accuracy.

    Args:
      learner: the learner of the best checkpoint, on features after `transform`.
      split: the validation data.
      step, basis: as in `Mix`.
    """
    size, count = split.embedding_size, config.run.num_val_episodes
    val = functools.partial(dataset.evaluation_episodes, config, split, count)
    option = choose(other_config(config), size, val, transform, console)
    names = method_of(option).chosen
    settings = {name: option.flat()[name] for name in names}
    both = {"mine": learner, "other": build(option, size, transform)}
    way = config.episodes.evaluation_way
    episodes = open_episodes(config, split, count, outside=0)
    with console.progress("ensemble", episodes.num_episodes, unit="episodes") as line:
        found = answers(both, episodes, way, line.advance)
    mine, others = found["mine"].inside, found["other"].inside
    temperatures = best_temperature(mine), best_temperature(others)
    share = config.methods.ensemble_share
    if share is None:
        mine, others = mine / temperatures[0], others / temperatures[1]
        right = np.arange(way)[:, np.newaxis]  # [N, 1]
        accuracies = [
            np.mean(np.argmax((1 - s) * mine + s * others, axis=-1) == right)
            for s in SHARES
        ]
        share = SHARES[int(np.argmax(accuracies))]
    unknown = math.nan, math.nan
    name = option.methods.method
    mix = Mix(step, basis, name, settings, share, *temperatures, unknown)
    joined = ensemble(learner, config, mix, size, transform)
    with console.progress("ensemble", count, unit="episodes") as line:
        reached = interval(evaluate({"": joined}, val(), line.advance)[""].accuracy)
    return mix._replace(validation=(reached.mean, reached.half_width))


def _most_accurate(
    options: Mapping[float, Config], built: tuple, episodes: EpisodesByRow, on_batch
) -> float:
    """Returns the value whose option is most accurate. `built` is for `build`."""
    first = build(next(iter(options.values())), *built)
    if isinstance(getattr(first, "learner", first), LinearRegression):
        found = _strength_accuracies(first, [*options], episodes, on_batch)
    else:
        named = {str(value): build(each, *built) for value, each in options.items()}
        scores = evaluate(named, episodes, lambda count: on_batch(count * len(named)))
        found = [score.accuracy.mean() for score in scores.values()]
    return [*options][int(np.argmax(found))]


def _strength_accuracies(
    learner: Any, strengths: Sequence[float], episodes: EpisodesByRow, on_batch
) -> list[float]:
    """Returns the mean accuracy of a linear regression with each strength."""
    # One graph for all of them, because tracing takes longer than running.
    table, batches = episodes.table, list(episodes.rows)
    regression = getattr(learner, "learner", learner)  # after a feature transform
    regression.strength = tf.Variable(strengths[0], dtype=table.features.dtype)
    scorer = make_scorer({"method": learner}, table)
    found = []
    for strength in strengths:
        regression.strength.assign(strength)
        scores = collect(scorer, batches, on_batch)["method"]
        found.append(scores.accuracy.mean())
    return found


def _best_scale(learner: AnyLearner, episodes: EpisodesByRow, on_batch) -> float:
    """Returns the one of `SCALES` with the least cross-entropy of scale * scores."""

    @tf.function(autograph=False)
    def losses(episode):
        scores, labels = adapt_and_score(learner, episode)[1], episode.query_labels
        return [tf.reduce_sum(cross_entropy(s * scores, labels)) for s in SCALES]

    totals = np.zeros(len(SCALES))
    for episode in episodes:
        totals += [float(loss) for loss in losses(episode)]
        on_batch(len(episode.support_inputs))
    return SCALES[int(np.argmin(totals))]
