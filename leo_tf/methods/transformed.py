"""Applies methods to transformed features, of size d."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode
from leo_tf.methods.transforms import Transform
from leo_tf.model.learner import Adapted, Count, Learner


class Transformed(Learner):
    """A method on transformed features, with the interface of the method.

    Everything except features is passed to the method unchanged, and so are its
    optional functions.

    Args:
      learner: built, for features of size d.
    """

    def __init__(self, learner: Learner, transform: Transform):
        self.learner, self.transform = learner, transform

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying looks these up before there is a learner
            raise AttributeError(name)
        found, change = getattr(self.learner, name), _CHANGES.get(name)
        if change is None:
            return found
        return lambda *arguments: found(*change(self.transform, *arguments))

    @property
    def trainable_variables(self) -> Sequence[Any]:
        return self.learner.trainable_variables

    @property
    def kernels(self) -> Sequence[Any]:
        return self.learner.kernels

    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        inputs = self.transform(support_inputs)
        return self.learner.adapt(inputs, support_labels, training, noise)

    def logits(
        self,
        classifier: tf.Tensor,
        inputs: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> tf.Tensor:
        inputs = self.transform(inputs)
        return self.learner.logits(classifier, inputs, training, noise)

    def draw_noise(
        self, episode: Episode, seed: tf.Tensor, step: tf.Tensor, first_task: Count = 0
    ) -> Any:
        episode = _of_episode(self.transform, episode)  # only its shapes matter
        return self.learner.draw_noise(episode, seed, step, first_task)


def beside(learner: Any, other: Learner) -> Learner:
    """Returns `other` on the features that `learner` gets."""
    changed = isinstance(learner, Transformed)
    return Transformed(other, learner.transform) if changed else other


def _of_episode(transform: Transform, episode: Episode) -> Episode:
    return episode._replace(
        support_inputs=transform(episode.support_inputs),
        query_inputs=transform(episode.query_inputs),
    )


# Optional functions of a method -> change of their arguments.
_CHANGES: Mapping[str, Callable[..., tuple]] = {
    "adapt_uneven": lambda change, support, *rest: (change(support), *rest),
    "answer": lambda change, support, targets, queries: (
        *(change(support), targets),
        change(queries),
    ),
    "draw_posterior": lambda change, shape, *rest: (
        [*shape[:-1], change.output_size],
        *rest,
    ),
    "latent_codes": lambda change, episode: (_of_episode(change, episode),),
}
