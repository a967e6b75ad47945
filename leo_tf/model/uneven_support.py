"""Adaptation to one task with any number of examples per class, in any order.

Episodes have the same number of examples for every class; what people bring when they
deploy a model has not. Here nothing is drawn and nothing is static, so that a graph
traced once serves every way and shot. Equal numbers give what `Learner.adapt` gives.

Shapes: S support examples in all, N way, D embedding size, Z latent size, P numbers of
a class in the classifier; `shots` [N] are the examples of each class.
"""

from typing import TYPE_CHECKING

import tensorflow as tf

from leo_tf.model.inner_loop import run_inner_loops
from leo_tf.model.latent import split_normal
from leo_tf.model.learner import UnevenAdapted

if TYPE_CHECKING:
    from leo_tf.model.leo import LEO

# The relation network looks at so many pairs at once: at Z = 64, 64 MiB per layer. All
# pairs of 1000 examples would take 512.
_PAIRS_AT_ONCE = 2**17


def adapt_leo(
    leo: "LEO", support: tf.Tensor, labels: tf.Tensor, way: tf.Tensor
) -> UnevenAdapted:
    """Adapts LEO to one support set, by means, through both inner loops.

    The release repeats a class's latent K times, adapts the copies and averages their
    classifiers. Without sampling the K copies are equal and stay equal, and each
    receives 1/K of the gradient of the class's classifier, whose loss is summed over K
    examples. So one latent per class, whose loss is the *mean* over the class's
    examples, is the release's answer exactly. That is the definition for uneven
    support, too: inner losses are averaged over the examples of a class and summed over
    the classes, so a class weighs the same however many examples it has.

    Args:
      support: [S, D] of length 1, in the dtype of `leo`.
      labels: [S] integers; every class from 0 to `way` - 1 occurs.

    Source: `LEO.adapt`, and of it arXiv:1807.05960, algorithm 1.
    """
    members = tf.one_hot(labels, way, dtype=support.dtype)  # [S, N]
    shots = tf.reduce_sum(members, axis=0)[:, tf.newaxis]  # [N, 1]
    shares = members / tf.transpose(shots)  # [S, N], of each class's loss

    decoder = leo.decoder.halves()
    closed_form = leo.closed_form(support[tf.newaxis], members[tf.newaxis])

    def decode(latents, unused_number):
        weights = leo.decode_classifier(latents, decoder, noise=None)
        # TensorFlow Lite lacks the gradient of a sum that might broadcast.
        return weights if closed_form is None else tf.add_n([closed_form, weights])

    def support_loss(weights, unused_number):
        log_shares = tf.nn.log_softmax(leo.logits(weights, support[tf.newaxis]))
        # As a product of matrices: TensorFlow Lite knows its gradient, yet not that of
        # an element-wise product of unknown shapes.
        return -tf.tensordot(shares[tf.newaxis], log_shares, axes=3)  # []

    # One task, and one latent per class.
    start = _first_latents(leo, support, members, shots)[tf.newaxis, :, tf.newaxis]
    rates = leo.inner_lr, leo.finetuning_lr
    loops = run_inner_loops(start, decode, support_loss, rates, leo.test_steps)
    latents, weights, _ = loops
    return UnevenAdapted(weights[0], start[0, :, 0], latents[0, :, 0])


def _first_latents(leo, support, members, shots):
    """Returns [N, Z] means from the relation network; zeros without an encoder.

    A pair of examples weighs the same whatever their classes: mean over all S right
    partners, then over the class's own examples.
    """
    num_latents = leo.config.num_latents
    if leo.config.random_prior:
        return tf.zeros_like(shots) + tf.zeros([num_latents], support.dtype)
    network = leo.relation_network
    left, right = network.sides(leo.encoder(support))  # [S, 2*Z] each
    count = tf.shape(support)[0]
    block = _PAIRS_AT_ONCE // count + 1

    def add_partners(begin, total):
        pairs = network.compare(left, right[begin : begin + block])
        return begin + block, total + tf.reduce_sum(pairs, axis=1)

    _, total = tf.while_loop(
        lambda begin, total: begin < count,
        add_partners,
        [0, tf.zeros_like(left)],
        parallel_iterations=1,
    )  # [S, 2*Z]
    per_example = total / tf.cast(count, total.dtype)
    per_class = tf.matmul(members, per_example, transpose_a=True) / shots
    return split_normal(network.parameters(per_class)).mean()
