"""Settings that a method wants chosen on the validation episodes, without training."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.evaluation.evaluate import evaluate
from leo_tf.methods.registry import build, method_of
from leo_tf.model.learner import Learner, adapt_and_score
from leo_tf.model.losses import cross_entropy

# What is tried on the validation episodes where a setting is not given.
STRENGTHS = tuple(10.0 ** (i / 2) for i in range(-6, 5))  # 0.001 to 100
SCALES = tuple(10.0 ** (i / 8) for i in range(-8, 25))  # 0.1 to 1000


def choose(
    config: Config, embedding_size: int, episodes: Callable[[], tf.data.Dataset]
) -> Config:
    """Fills in what the method wants chosen on validation episodes, if not given.

    First the strength of the penalty by accuracy, then the scale of the scores by
    negative log-likelihood, which accuracy does not depend on.

    Returns:
      `config` with `ridge_strength`, `logistic_strength` or `score_scale` set.
    """
    missing = [n for n in method_of(config).chosen if config.flat()[n] is None]
    for name in missing:
        if name != "score_scale":
            options = [config.replace(**{name: s}, score_scale=1.0) for s in STRENGTHS]
            learners = {str(i): build(o, embedding_size) for i, o in enumerate(options)}
            scores = evaluate(learners, episodes()).values()
            best = int(np.argmax([score.accuracy.mean() for score in scores]))
            config = config.replace(**{name: STRENGTHS[best]})
    if "score_scale" in missing:
        learner = build(config.replace(score_scale=1.0), embedding_size)
        config = config.replace(score_scale=_best_scale(learner, episodes()))
    return config


def _best_scale(learner: Learner, episodes: tf.data.Dataset) -> float:
    """Of `SCALES`, that of the least cross-entropy of scale * scores."""

    @tf.function(autograph=False)
    def losses(episode):
        scores, labels = adapt_and_score(learner, episode)[1], episode.query_labels
        return [tf.reduce_sum(cross_entropy(s * scores, labels)) for s in SCALES]

    totals = np.zeros(len(SCALES))
    for episode in episodes:
        totals += [float(loss) for loss in losses(episode)]
    return SCALES[int(np.argmin(totals))]
