"""Settings that a method wants chosen on the validation episodes, without training."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.methods.nearest_centroid import NearestCentroid
from leo_tf.methods.registry import build, method_of
from leo_tf.methods.transforms import Statistics, Transform, Transformed
from leo_tf.model.learner import AnyLearner, adapt_and_score
from leo_tf.model.losses import cross_entropy

# What is tried on the validation episodes where a setting is not given.
STRENGTHS = tuple(10.0 ** (i / 2) for i in range(-6, 5))  # 0.001 to 100
# Those of Ziko et al., 2020, section 4.
LAPLACIAN_WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5)
SCALES = tuple(10.0 ** (i / 8) for i in range(-8, 25))  # 0.1 to 1000
# Discriminants and shares of shrinkage.
_DIMS = (8, 16, 32, 64, 128, 256)
_SHRINKAGES = (0.001, 0.01, 0.1, 0.5, 0.9)
_USUAL_DIMS, _USUAL_SHRINKAGE = 64, 0.1
# With fewer validation classes than this, what is best there is so by chance.
_ENOUGH_CLASSES = 10
_TRIED_ON = 300  # validation episodes


def fit_transform(
    config: Config, splits: Mapping[str, Split]
) -> tuple[Config, Transform]:
    """Fits the feature transform to the training classes.

    What is not given is chosen by nearest centroid on the first validation episodes.
    A method that is trained wants more dims than nearest centroid does: 64, as far as
    there are as many. Where validation classes are few, or trained on, nothing is
    chosen: then it is 64 again, and a shrinkage of 0.1.

    Returns:
      `config` with `transform_dims` and `transform_shrinkage` as far as they make a
      difference; and the transform.

    Raises:
      InputError: see `transforms.Statistics`.
    """
    features, val = config.features, splits["val"]
    statistics = Statistics(splits["train"].table, features.feature_power)
    most = statistics.most_dims
    few = len(val.class_names) < _ENOUGH_CLASSES or config.data.train_on_val
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
    transforms = [statistics.transform_of(option.features) for option in options]
    best = 0
    if len(options) > 1:
        count = min(_TRIED_ON, config.run.num_val_episodes)
        episodes = dataset.evaluation_episodes(config, val, count)
        learners = {
            str(number): Transformed(NearestCentroid(), transform)
            for number, transform in enumerate(transforms)
        }
        scores = evaluate(learners, episodes).values()
        best = int(np.argmax([score.accuracy.mean() for score in scores]))
    return options[best], transforms[best]


def choose(
    config: Config,
    embedding_size: int,
    episodes: Callable[[], tf.data.Dataset],
    transform: Transform | None = None,
) -> Config:
    """Fills in what the method wants chosen on validation episodes, if not given.

    First what accuracy depends on, such as the strength of a penalty, by accuracy; then
    the scale of the scores by negative log-likelihood.

    Returns:
      `config` with all that the method has in `Method.chosen` set.
    """
    missing = [n for n in method_of(config).chosen if config.flat()[n] is None]
    for name in missing:
        if name != "score_scale":
            tried = LAPLACIAN_WEIGHTS if name == "laplacian_weight" else STRENGTHS
            options = [config.replace(**{name: s}, score_scale=1.0) for s in tried]
            learners = {
                str(i): build(option, embedding_size, transform)
                for i, option in enumerate(options)
            }
            scores = evaluate(learners, episodes()).values()
            best = int(np.argmax([score.accuracy.mean() for score in scores]))
            config = config.replace(**{name: tried[best]})
    if "score_scale" in missing:
        unscaled = config.replace(score_scale=1.0)
        learner = build(unscaled, embedding_size, transform)
        config = config.replace(score_scale=_best_scale(learner, episodes()))
    return config


def _best_scale(learner: AnyLearner, episodes: tf.data.Dataset) -> float:
    """Of `SCALES`, that of the least cross-entropy of scale * scores."""

    @tf.function(autograph=False)
    def losses(episode):
        scores, labels = adapt_and_score(learner, episode)[1], episode.query_labels
        return [tf.reduce_sum(cross_entropy(s * scores, labels)) for s in SCALES]

    totals = np.zeros(len(SCALES))
    for episode in episodes:
        totals += [float(loss) for loss in losses(episode)]
    return SCALES[int(np.argmin(totals))]
