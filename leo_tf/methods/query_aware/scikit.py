"""Classifiers of scikit-learn's conventions as methods, without training.

Shapes: B tasks in the meta-batch, N way, S support examples and M queries of a task, D
embedding size.
"""

import functools
from typing import Any

import tensorflow as tf

from leo_tf.methods.query_aware.estimators import answer_all
from leo_tf.model.learner import QueryAware


class ScikitLearn(QueryAware):
    """A classifier fitted to each support set outside TensorFlow.

    It scores each query alone. It cannot be exported.

    Args:
      estimator: not fitted; see `estimators.answer_one`.
      scale: factor of all scores; changes confidence, not answers.
    """

    is_exportable = False

    def __init__(self, estimator: Any, scale: float = 1.0):
        self.estimator, self.scale = estimator, scale

    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns logits [B, M, N]; see `QueryAware`."""
        labels, way = tf.argmax(targets, axis=2), tf.shape(targets)[2]
        logits = tf.numpy_function(
            functools.partial(answer_all, self.estimator),
            [support, labels, queries, way],
            support.dtype,
        )
        logits.set_shape([support.shape[0], queries.shape[1], targets.shape[2]])
        return self.scale * logits
