"""Episodes with added queries of other classes, and methods' answers to them.

Shapes: E episodes, B of them in a batch, N way, Q queries per class, U classes outside
an episode.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline import dataset
from leo_tf.data_pipeline.dataset import Split
from leo_tf.data_pipeline.episode import Episode
from leo_tf.data_pipeline.pipeline import EpisodesByRow
from leo_tf.methods.inductive.nearest_centroid import NearestCentroid
from leo_tf.methods.transformed import beside
from leo_tf.model.learner import AnyLearner, adapt_and_score

_QUERIES = 15  # per class
_MOST_LOGITS = 2**25


class Answers(NamedTuple):
    """Scores of one method on E episodes: queries of their classes and of U others."""

    inside: np.ndarray  # [E, N, Q, N] logits
    mixed: np.ndarray  # the same, with queries asked together with those outside
    outside: np.ndarray  # [E, U, Q, N]
    cosine_inside: np.ndarray  # [E, N, Q], the largest with a class mean
    cosine_outside: np.ndarray  # [E, U, Q]


def outside_of(config: Config, split: Split) -> int:
    """Returns U: as many classes outside an episode as inside, or all there are."""
    way = config.episodes.evaluation_way
    return min(way, len(split.class_names) - way)


def open_episodes(
    config: Config, split: Split, count: int, outside: int | None = None
) -> EpisodesByRow:
    """Returns episodes of N + U classes, of which the first N are the episode's.

    U is `outside`, or that of `outside_of`.
    """
    inside = config.episodes.evaluation_way
    way = inside + (outside_of(config, split) if outside is None else outside)
    shape = dataset.evaluation_shape(config, split)
    queries = min(_QUERIES, shape["num_query"])
    alike = {"test_num_query": queries, "query_dirichlet": None}
    wide = config.replace(test_way=way, **alike)
    count = max(1, min(count, _MOST_LOGITS // (way * queries * inside)))
    return dataset.evaluation_episodes(wide, split, count, together=True)


def answers_as_tested(
    learner: AnyLearner,
    config: Config,
    split: Split,
    count: int,
    console: Console = SILENT,
    title: str = "",
) -> Answers:
    """Scores up to `count` open episodes with one method.

    If tests have unbalanced queries, so have the inside ones. Their logits are then
    swapped so that query [n, q] has its right class at n, whatever class it is of.
    `title` is that of the progress line on the console.
    """
    shape = config.episodes
    way, is_balanced = shape.evaluation_way, shape.query_dirichlet is None
    episodes = open_episodes(config, split, count)
    total = episodes.num_episodes * (1 if is_balanced else 2)
    with console.progress(title, total, unit="episodes") as line:
        found = answers({"": learner}, episodes, way, line.advance)[""]
        if is_balanced:
            return found
        count, queries = len(found.inside), found.inside.shape[2]
        alike, parts = config.replace(test_num_query=queries), []
        for each in dataset.evaluation_episodes(alike, split, count, together=True):
            logits = adapt_and_score(learner, each)[1].numpy()
            parts.append(_right_in_place(logits, each.query_labels))
            line.advance(len(logits))
    return found._replace(inside=np.concatenate(parts).astype(np.float64))


def _right_in_place(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Swaps logits [B, N, Q, N] so that query [b, n, q] has its right class at n."""
    labels = np.asarray(labels)[..., np.newaxis]
    place = np.broadcast_to(
        np.arange(logits.shape[1])[:, np.newaxis, np.newaxis], labels.shape
    )
    right, other = (np.take_along_axis(logits, at, axis=-1) for at in (labels, place))
    swapped = logits.copy()
    np.put_along_axis(swapped, labels, other, axis=-1)
    np.put_along_axis(swapped, place, right, axis=-1)
    return swapped


def answers(
    learners: Mapping[str, AnyLearner],
    episodes: EpisodesByRow,
    way: int,
    on_batch: Callable[[int], None] = lambda episodes: None,
) -> dict[str, Answers]:
    """Scores `open_episodes` with methods, deterministically and without a graph.

    Tracing a graph would take longer than these few batches. A method that learns from
    queries also scores the inside ones alone, as in a test. `on_batch` is as in
    `evaluate`.
    """
    parts: dict[str, list[Answers]] = {}
    for wide in episodes:
        for name, learner in learners.items():
            logits = _scores(learner, wide, way)
            cosines = _scores(beside(learner, NearestCentroid()), wide, way).max(-1)
            mixed = inside = logits[:, :way]
            if hasattr(learner, "answer"):
                inside = _scores(learner, _of_first(wide, way), way)
            near, far = cosines[:, :way], cosines[:, way:]
            found = Answers(inside, mixed, logits[:, way:], near, far)
            parts.setdefault(name, []).append(found)
        on_batch(len(found.inside))
    return {
        name: Answers(*(np.concatenate(arrays) for arrays in zip(*each)))
        for name, each in parts.items()
    }


def _of_first(wide: Episode, way: int) -> Episode:
    """Returns the episode without queries of other classes."""
    queries, labels = wide.query_inputs[:, :way], wide.query_labels[:, :way]
    return wide._replace(query_inputs=queries, query_labels=labels)


def _scores(learner, wide: Episode, way: int) -> np.ndarray:
    """Returns [B, N + U, Q, N] logits in float64, of queries of all classes."""
    episode = wide._replace(
        support_inputs=wide.support_inputs[:, :way],
        support_labels=wide.support_labels[:, :way],
    )
    return adapt_and_score(learner, episode)[1].numpy().astype(np.float64)
