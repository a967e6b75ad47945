"""Episode: the data of few-shot problems, passed between all modules.

Shapes: B episodes, N way, K shot, Q queries per class, D embedding size.
"""

from typing import NamedTuple

import tensorflow as tf


class Episode(NamedTuple):
    """A batch of few-shot problems: a support set to learn from, queries to answer.

    Class n of an episode has label n, so a label means nothing outside its episode.

    Source: the release's `ProblemInstance` (`data.py`). There `tr_input`, `tr_output`,
    `val_input` and `val_output` are these four in this order, without B and with a
    last axis of 1 on the labels; `tr_info` and `val_info` are the names that
    `sampler.episode_names` looks up.
    """

    support_inputs: tf.Tensor  # [B, N, K, D] embeddings of length 1
    support_labels: tf.Tensor  # [B, N, K] int32, 0 to N - 1
    query_inputs: tf.Tensor  # [B, N, Q, D] embeddings of length 1
    query_labels: tf.Tensor  # [B, N, Q] int32, 0 to N - 1


class EpisodeRows(NamedTuple):
    """Row numbers of a batch of episodes in their table."""

    support: tf.Tensor  # [B, N, K] int32, rows of the table
    query: tf.Tensor  # [B, N, Q] int32, rows of the table; none is in `support`
    classes: tf.Tensor  # [B, N] int32, the table's class behind label n
    # [B, N, Q] int32, the labels of `query` where these are not n in row n.
    labels: tf.Tensor | None = None
