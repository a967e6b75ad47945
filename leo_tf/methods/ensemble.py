"""Ensembles: the scores of a trained method and of a closed form, added.

A trained method and a closed form make different mistakes, so their mean is often
better than either.

Shapes: B tasks in the meta-batch, N way, K shot, S support examples of a task, D
embedding size, P numbers of a class in a classifier.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode
from leo_tf.methods.transformed import Transformed
from leo_tf.model.learner import (
    Adapted,
    Count,
    Learner,
    UnevenAdapted,
    is_exportable,
    uneven_adapt,
)


class Mix(NamedTuple):
    """Settings of an ensemble, saved in ensemble.json."""

    step: int  # step of the learner's checkpoint
    basis: str  # digest of its inputs; see `runs.fitted.basis_of`
    other: str  # name of the closed form
    settings: dict[str, float]  # chosen settings of the closed form
    share: float  # weight of the closed form, 0 to 1
    temperature: float  # of the learner, and of the closed form:
    other_temperature: float  # they calibrate both before adding
    validation: tuple[float, float]  # accuracy of the ensemble, and its half-width

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of ensemble.json."""
        return {**self._asdict(), "validation": [*self.validation]}

    @classmethod
    def from_dict(cls, values: Any) -> "Mix":
        """Restores a `Mix` from the output of `as_dict`.

        Raises:
          ValueError: if `values` is not such an output.
        """
        try:
            found = cls(**values)
            mean, half_width = found.validation  # None for a single episode
            width = math.inf if half_width is None else half_width
            found = found._replace(validation=(mean, width))
            above = found.temperature, found.other_temperature, *found.settings.values()
            numbers = found.share, *found.validation, *above
            is_right = (
                all(type(number) in (int, float) for number in numbers)
                and all(0 < number < math.inf for number in above)
                and 0 <= found.share <= 1
                and type(found.step) is int
            )
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error
        if not is_right:
            raise ValueError("a field of another kind")
        return found


class Ensemble(Learner):
    """A learner and another method whose log-probabilities are averaged.

    A classifier has the numbers of both, the closed form's `size` numbers last.
    Everything else is the learner's.
    """

    def __init__(self, learner: Learner, other: Learner, size: int, mix: Mix):
        self.learner, self.other, self.size, self.mix = learner, other, size, mix

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying looks these up before there is a learner
            raise AttributeError(name)
        return getattr(self.learner, name)

    @property
    def runs_on_litert(self) -> bool:
        both = self.learner, self.other
        return all(getattr(each, "runs_on_litert", False) for each in both)

    @property
    def is_exportable(self) -> bool:
        return is_exportable(self.learner)

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
        given = support_inputs, support_labels
        adapted = self.learner.adapt(*given, training, noise)
        other = self.other.adapt(*given).classifier
        both = tf.concat([adapted.classifier, other], axis=-1)
        return adapted._replace(classifier=both)

    def adapt_uneven(
        self, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
    ) -> UnevenAdapted:
        adapted = uneven_adapt(self.learner)(support, labels, way)
        other = uneven_adapt(self.other)(support, labels, way).classifier
        both = tf.concat([adapted.classifier, other], axis=-1)
        return adapted._replace(classifier=both)

    def logits(
        self,
        classifier: tf.Tensor,
        inputs: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> tf.Tensor:
        mine, others = classifier[..., : -self.size], classifier[..., -self.size :]
        scores = self.learner.logits(mine, inputs, training, noise)
        others = self.other.logits(others, inputs)
        mix = self.mix
        scores = (1 - mix.share) / mix.temperature * scores
        return scores + mix.share / mix.other_temperature * others

    def draw_noise(
        self, episode: Episode, seed: tf.Tensor, step: tf.Tensor, first_task: Count = 0
    ) -> Any:
        return self.learner.draw_noise(episode, seed, step, first_task)


def together(learner: Learner, other: Learner, size: int, mix: Mix) -> Learner:
    """Returns the `Ensemble` of two methods, on the features the learner gets."""
    if isinstance(learner, Transformed):
        inner = Ensemble(learner.learner, other, size, mix)
        return Transformed(inner, learner.transform)
    return Ensemble(learner, other, size, mix)


def without_other(learner: Any) -> Any:
    """Returns the learner of an ensemble, or the method itself."""
    if isinstance(learner, Transformed):
        return Transformed(without_other(learner.learner), learner.transform)
    return learner.learner if isinstance(learner, Ensemble) else learner
