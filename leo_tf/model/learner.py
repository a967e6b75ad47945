"""The interface of methods: adapt to a support set, then score queries.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding size,
P numbers of a class in a classifier: D weights, or D weights and then a bias.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode
from leo_tf.errors import InputError
from leo_tf.model.losses import cross_entropy

Count: TypeAlias = int | tf.Tensor  # of a Python loop, or [] in a graph


class Adapted(NamedTuple):
    """Result of adaptation to the support sets of a meta-batch.

    Attributes:
      classifier: [B, N, P] a weight vector for each class, and its bias if any.
      penalties: name -> [B] or [], weighted terms of the outer loss besides the query
        cross-entropy.
      diagnostics: name -> [] numbers for TensorBoard; they change nothing.
        "grew/SETTING" is 1 if the support's loss grew in the loop that begins with that
        rate: the rate to lower if steps are non-finite.
    """

    classifier: tf.Tensor
    penalties: dict[str, tf.Tensor] = {}  # noqa: RUF012, a tuple's: never changed
    diagnostics: dict[str, tf.Tensor] = {}  # noqa: RUF012


class UnevenAdapted(NamedTuple):
    """Result of adaptation to one support set of any class sizes.

    Attributes:
      classifier: [N, P], as in `Adapted`, without the axis of tasks.
      latents_before: [N, Z] codes before the inner loop, [N, 0] without latents.
      latents_after: [N, Z] codes after it, likewise.
    """

    classifier: tf.Tensor
    latents_before: tf.Tensor
    latents_after: tf.Tensor


class Learner(Protocol):
    """A few-shot method. A task's state is never stored on it.

    A subclass inherits all but `adapt`: then nothing is trained or drawn, and scores
    are those of `class_scores`. What is trained are variables of Keras, named
    explicitly, or checkpoints could not be read by another object.

    A method that can do more says so by having it:

    - `adapt_uneven(support [S, D], labels [S], way []) -> UnevenAdapted`: adapts to one
      support set of S examples in any order, without draws; S and way are unknown while
      tracing. Exports need it. If all it takes are operators of TensorFlow Lite,
      `runs_on_litert` is True.
    - `draw_posterior(support_shape, seed, number, first_task) -> noise`: for a test
      that averages predictions over draws, numbered from 0 on; support_shape is
      [B, N, K, D], and first_task the number of the first of these B tasks among all
      that are tested. `has_posterior` is False if there is nothing to draw.
    - `latent_codes(episode) -> (before, after)`: [B, N, Z] each, codes of the classes
      before and after the inner loop, for TensorBoard.
    - `takes_memory`: True if it needs hundreds of vectors of length D per task.
    - `is_exportable`: False if it does not run in TensorFlow.
    """

    @property
    def trainable_variables(self) -> Sequence[Any]:
        """The variables that meta-steps change."""
        return ()

    @property
    def kernels(self) -> Sequence[Any]:
        """Variables that a non-finite step pulls towards zero."""
        return ()

    @abc.abstractmethod
    def adapt(
        self,
        support_inputs: tf.Tensor,
        support_labels: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> Adapted:
        """Makes classifiers from support_inputs [B, N, K, D] and labels [B, N, K]."""

    def logits(
        self,
        classifier: tf.Tensor,
        inputs: tf.Tensor,
        training: bool = False,
        noise: Any = None,
    ) -> tf.Tensor:
        """[B, ..., N] scores of inputs [B, ..., D]: grouped by class or flat.

        Inputs [1, M, D] are those of all B tasks.
        """
        return class_scores(classifier, inputs)

    def draw_noise(
        self, episode: Episode, seed: tf.Tensor, step: tf.Tensor, first_task: Count = 0
    ) -> Any:
        """Draws all noise of a training step, from (seed, step) only; or None.

        In training, `adapt` and `logits` take it as `noise`. If `episode` is the part
        of the meta-batch that begins with task number `first_task`, its tasks get the
        same noise as in the full meta-batch.
        """
        return None


class QueryAware(abc.ABC):
    """A method with `answer` in place of a `Learner`'s `adapt` and `logits`.

    It gets all queries of a task at once, and may learn from them, as transductive
    methods do: then an answer depends on the other queries. It is not trained.
    """

    trainable_variables: Sequence[Any] = ()
    kernels: Sequence[Any] = ()

    @abc.abstractmethod
    def answer(
        self, support: tf.Tensor, targets: tf.Tensor, queries: tf.Tensor
    ) -> tf.Tensor:
        """Returns logits [B, M, N] of queries [B, M, D].

        Args:
          support: [B, S, D] of length 1, any number per class, in any order.
          targets: [B, S, N], 1 for the class of an example, else 0.
          queries: [B, M, D] of length 1.
        """


# What a method of the registry makes.
AnyLearner: TypeAlias = Learner | QueryAware


def adapt_and_score(
    learner: AnyLearner, episode: Episode, training: bool = False, noise: Any = None
) -> tuple[Adapted, tf.Tensor]:
    """Adapts to a meta-batch's supports, then scores its queries: [B, N, Q, N].

    When `training`, samples are drawn with `noise` from `learner.draw_noise`. A
    `QueryAware` method has no classifier: `Adapted` holds [B, N, 0] of it.
    """
    if hasattr(learner, "answer"):
        return _answered(learner, episode)
    mode = {"training": training, "noise": noise}
    adapted = learner.adapt(episode.support_inputs, episode.support_labels, **mode)
    return adapted, learner.logits(adapted.classifier, episode.query_inputs, **mode)


def _answered(learner, episode: Episode):
    _, way, shot, size = episode.support_inputs.shape
    support = tf.reshape(episode.support_inputs, [-1, way * shot, size])
    labels = tf.reshape(episode.support_labels, [-1, way * shot])
    queries = tf.reshape(episode.query_inputs, [tf.shape(support)[0], -1, size])
    targets = tf.one_hot(labels, way, dtype=support.dtype)
    logits = learner.answer(support, targets, queries)  # [B, N * Q, N]
    shape = tf.concat([tf.shape(episode.query_labels), [way]], axis=0)
    return Adapted(support[:, :way, :0]), tf.reshape(logits, shape)


def loss_parts(
    adapted: Adapted, logits: tf.Tensor, query_labels: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the terms of the outer loss, each [] and averaged over tasks.

    Source: arXiv:1807.05960, equation 6; `LEO._build` in the release's `model.py`.
    """
    query = tf.reduce_mean(cross_entropy(logits, query_labels))
    penalties = {name: tf.reduce_mean(part) for name, part in adapted.penalties.items()}
    return {"query": query, **penalties}


def class_scores(
    classifier: tf.Tensor, inputs: tf.Tensor, dtype: tf.DType | str | None = None
) -> tf.Tensor:
    """[B, ..., N] inner product of inputs and each class's weights, plus bias if any.

    Args:
      classifier: [B, N, P]; P is D, or D + 1 with a bias behind the weights.
      inputs: [B, N, Q, D] or flat [B, M, D]; [1, M, D] if all tasks have the same.
      dtype: to compute the products in; None for that of the inputs.
    """
    size, is_flat = inputs.shape[-1], len(inputs.shape) == 3
    has_bias = classifier.shape[-1] == size + 1
    weights = classifier[..., :size] if has_bias else classifier
    flat = inputs if is_flat else tf.reshape(inputs, [tf.shape(inputs)[0], -1, size])
    factors = (tf.cast(x, dtype or x.dtype) for x in (weights, flat))
    scores = tf.cast(_products(*factors), inputs.dtype)  # [B, M, N]
    if has_bias:
        scores += classifier[:, tf.newaxis, :, size]
    if is_flat:
        return scores
    shape = [tf.shape(scores)[:1], tf.shape(inputs)[1:-1], tf.shape(classifier)[1:2]]
    return tf.reshape(scores, tf.concat(shape, axis=0))


def _products(weights, inputs):
    """[B, M, N] of weights [B, N, D] and inputs [B, M, D] or [1, M, D]."""
    if inputs.shape[0] != 1 or weights.shape[0] == 1:
        return tf.matmul(inputs, weights, transpose_b=True)
    tasks, way, size = tf.unstack(tf.shape(weights))  # one product for all tasks
    flat = tf.reshape(weights, [-1, size])  # [B * N, D]
    scores = tf.matmul(inputs[0], flat, transpose_b=True)
    return tf.transpose(tf.reshape(scores, [-1, tasks, way]), [1, 0, 2])


def uneven_adapt(learner: Learner) -> Callable[..., UnevenAdapted]:
    """Calls a method's `adapt_uneven`. Raises an InputError if it has none."""
    if hasattr(learner, "adapt_uneven"):
        return learner.adapt_uneven
    inner = getattr(learner, "learner", learner)  # after a feature transform
    hint = "examples/own_method.py has one: it adapts to any numbers of examples."
    raise InputError("method", "one with `adapt_uneven`", type(inner).__name__, hint)


def is_exportable(learner: AnyLearner) -> bool:
    """Tells whether a method can be exported."""
    does = hasattr(learner, "answer") or hasattr(learner, "adapt_uneven")
    return does and getattr(learner, "is_exportable", True)


def takes_memory(learner: AnyLearner) -> bool:
    """Tells whether a method needs hundreds of vectors of length D per task."""
    return hasattr(learner, "answer") or getattr(learner, "takes_memory", False)


def without_latents(classifier: tf.Tensor) -> UnevenAdapted:
    """Returns `UnevenAdapted` of a classifier [N, P] made without latents."""
    return UnevenAdapted(classifier, classifier[:, :0], classifier[:, :0])
