"""Measures how long a method takes to adapt to a task."""

import statistics
import time

import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.pipeline import gather
from leo_tf.model.learner import AnyLearner, adapt_and_score

# Numbers of timed tasks, and of warm-up tasks before them.
_TIMED, _WARM = 50, 5


def adaptation_seconds(learner: AnyLearner, config: Config, split: Split) -> float:
    """Returns the median time to adapt to a task. Tasks come singly, in a graph.

    For a method that answers queries together, the time includes the answers.
    """
    episodes = dataset.evaluation_episodes(config, split, _TIMED + _WARM)

    @tf.function(autograph=False)
    def adapt(episode):
        if hasattr(learner, "answer"):
            return adapt_and_score(learner, episode)[1]
        return learner.adapt(episode.support_inputs, episode.support_labels).classifier

    seconds = []
    for rows in episodes.rows.unbatch().batch(1):
        episode = gather(split.table, rows)
        start = time.perf_counter()
        adapt(episode).numpy()  # waits
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[_WARM:])
