"""One task at a time, with any number of examples for each class, in any order.

Episodes have the same number of examples for every class; what people bring when they
deploy a model has not. Here nothing is drawn and nothing is static, so that a graph
traced once serves every way and shot. Equal numbers give what `Learner.adapt` gives.

Shapes: S support examples in all, N way, D embedding size, Z latent size, P numbers of
a class in the classifier; `shots` [N] are the examples of each class.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from leo_tf.errors import InputError
from leo_tf.model.inner_loop import gradient_descent
from leo_tf.model.learner import Learner, UnevenAdapted
from leo_tf.model.leo import LEO

# The relation network looks at so many pairs at once: at Z = 64, 64 MiB a layer. All
# pairs of 1000 examples would take 512.
_PAIRS_AT_ONCE = 2**17


# (support [S, D] of length 1, labels [S], way []) -> UnevenAdapted
UnevenAdapt = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], UnevenAdapted]


def uneven_adapt(learner: Learner) -> UnevenAdapt:
    """How a method adapts to uneven support: its own `adapt_uneven`, if it has one.

    Raises:
      InputError: if nothing is known for this method.
    """
    if hasattr(learner, "adapt_uneven"):
        return learner.adapt_uneven
    if isinstance(learner, LEO):
        return functools.partial(adapt_leo, learner)
    raise InputError("method", "one with `adapt_uneven`", type(learner).__name__)


def adapt_leo(
    leo: LEO, support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
) -> UnevenAdapted:
    """LEO's answer to one support set, by means, through both inner loops.

    The release repeats a class's latent K times, adapts the copies and averages their
    classifiers. Without sampling the K copies are equal and stay equal, and each
    receives 1/K of the gradient of the class's classifier, whose loss is summed over K
    examples. So one latent a class, whose loss is the *mean* over the class's examples,
    is the release's answer exactly. That is the definition for uneven support, too:
    inner losses are averaged over the examples of a class and summed over the classes,
    so a class weighs the same however many examples it has.

    Args:
      leo: built.
      support: [S, D] of length 1, in the dtype of `leo`.
      labels: [S] integers; every class from 0 to N - 1 occurs.
      way: [] int32, N.

    Source: `LEO.adapt`, and of it arXiv:1807.05960, algorithm 1.
    """
    members, shots = _membership(labels, way, support.dtype)  # [S, N], [N, 1]
    shares = members / tf.transpose(shots)  # [S, N], of each class's loss
    means = leo.decoder.embedding_size
    decoder = tf.convert_to_tensor(leo.decoder.kernel)[:, :means]  # [Z, D]

    def weights_loss(weights, unused_step):
        scores = tf.matmul(support, weights, transpose_b=True)  # [S, N]
        # As a product of matrices: TensorFlow Lite knows its gradient, yet not that of
        # an element-wise product of unknown shapes.
        return -tf.tensordot(shares, tf.nn.log_softmax(scores), axes=2)  # []

    def latent_loss(latents, step):
        return weights_loss(latents @ decoder, step)

    def rates(variable):  # [1, 1, Z] or [1, 1, D] -> [1, Z] or [1, D]
        return tf.convert_to_tensor(variable)[0]

    start = _first_latents(leo, support, members, shots)  # [N, Z]
    steps = leo.config.inner_unroll_length, leo.config.finetuning_unroll_length
    adapted, _ = gradient_descent(latent_loss, start, rates(leo.inner_lr), steps[0])
    weights = adapted @ decoder  # [N, D]
    weights, _ = gradient_descent(
        weights_loss, weights, rates(leo.finetuning_lr), steps[1]
    )
    return UnevenAdapted(weights, start, adapted)


def uneven_logits(classifier: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """[M, N] scores of inputs [M, D] by a classifier [N, P], as `class_scores` gives.

    Not by calling it: TensorFlow Lite has no operator for the shape it ensures.
    """
    size = inputs.shape[-1]
    scores = tf.matmul(inputs, classifier[:, :size], transpose_b=True)  # [M, N]
    return scores if classifier.shape[-1] == size else scores + classifier[:, size]


def _membership(labels, way, dtype):
    """[S, N] 1 where an example is of a class, else 0; [N, 1] examples of a class."""
    members = tf.one_hot(labels, way, dtype=dtype)
    return members, tf.reduce_sum(members, axis=0)[:, tf.newaxis]


def _first_latents(leo, support, members, shots):
    """[N, Z] means that the relation network gives; zero if there is none.

    A pair of examples weighs the same whatever their classes: mean over all S right
    partners, then over the class's own examples.
    """
    num_latents = leo.config.num_latents
    if leo.config.random_prior:
        return tf.zeros_like(shots) + tf.zeros([num_latents], support.dtype)
    codes = support @ tf.convert_to_tensor(leo.encoder.kernel)  # [S, Z]
    first, second, third = map(tf.convert_to_tensor, leo.relation_network.kernels)
    left, right = codes @ first[:num_latents], codes @ first[num_latents:]  # [S, 2*Z]
    count = tf.shape(codes)[0]
    block = _PAIRS_AT_ONCE // count + 1

    def add_partners(begin, total):
        partners = right[begin : begin + block]
        pairs = tf.nn.relu(left[:, tf.newaxis] + partners)  # [S, block, 2*Z]
        pairs = tf.nn.relu(tf.tensordot(pairs, second, axes=1))
        return begin + block, total + tf.reduce_sum(pairs, axis=1)

    _, total = tf.while_loop(
        lambda begin, total: begin < count,
        add_partners,
        [0, tf.zeros_like(left)],
        parallel_iterations=1,
    )  # [S, 2*Z]
    per_example = total / tf.cast(count, total.dtype)
    per_class = tf.matmul(members, per_example, transpose_a=True) / shots
    return per_class @ third[:, :num_latents]
