"""Gradient descent on the support: LEO's two inner loops, and the step of MAML's.

Shapes: B tasks in the meta-batch, N way, K shot, D embedding size, Z latent size.
"""

import math
from collections.abc import Callable

import tensorflow as tf

# Times the loss of guessing: untrained classifiers are below, spoiled ones far above.
_SANE_LOSS = 5.0


def gradient_descent(
    loss_fn: Callable[[tf.Tensor, int], tf.Tensor],
    start: tf.Tensor,
    learning_rate: tf.Tensor,
    num_steps: int,
    *,
    first_order: bool = False,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Unrolls `num_steps` of gradient descent so an outer tape can see through it.

    Args:
      loss_fn: maps parameters and the number of the step to a loss of any shape. It
        is summed, not averaged, when differentiated, so tasks in a meta-batch do not
        mix and inner step sizes do not depend on the number of tasks.
      start: initial parameters, [B, ...].
      learning_rate: scalar, or any shape that broadcasts against `start`.
      num_steps: number of steps, a Python int: the loop is unrolled into the graph.
      first_order: treat the steps' gradients as constants: an outer tape does not see
        how they depend on `start`. Cheaper, and no longer the true gradient.

    Returns:
      Adapted parameters, same shape as `start`; and the loss before each step.

    Source: arXiv:1807.05960, algorithm 1, lines 10 to 15; `leo_inner_loop` and
    `finetuning_inner_loop` in the release's `model.py`.
    """
    params, losses = start, []
    for step in range(num_steps):
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = loss_fn(params, step)
        gradient = tape.gradient(loss, params)
        if first_order:
            gradient = tf.stop_gradient(gradient)
        params = params - learning_rate * gradient
        losses.append(loss)
    return params, losses


def run_inner_loops(
    start: tf.Tensor,
    decode: Callable,
    support_loss: Callable,
    rates: tuple[tf.Tensor, tf.Tensor],
    steps: tuple[int, int],
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """LEO's two inner loops: algorithm 1, lines 9 to 15, then fine-tuning.

    Args:
      start: [B, N, K, Z] latents.
      decode: (latents, number of the decode) -> weights [B, N, D].
      support_loss: (weights, number of the evaluation) -> losses of any shape.
      rates: [1, 1, Z] of latents; and [1, 1, D] / K of weights: the release moves K
        copies of a class's weights, each by 1 / K of the gradient of their mean; here
        their mean moves, by as much.
      steps: (U, F).

    Returns:
      [B, N, K, Z] latents; [B, N, D] weights; U + F + 1 losses, one before each step
      and one after all.
    """
    latents, losses = adapt_latents(start, decode, support_loss, rates[0], steps[0])
    weights, more = finetune_classifier(
        decode(latents, steps[0]),
        # The first step starts from the loss of the last decode: its mask, too.
        lambda weights, step: support_loss(weights, steps[0] + step),
        rates[1],
        steps[1],
    )
    return latents, weights, losses + more


def adapt_latents(
    start: tf.Tensor,
    decode: Callable,
    support_loss: Callable,
    learning_rate: tf.Tensor,
    num_steps: int,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Steps in latent space, decoding afresh: the release's `leo_inner_loop`.

    Returns:
      [B, N, K, Z] latents; U losses, one before each step.
    """

    def latent_loss(latents, step):
        return support_loss(decode(latents, step), step)

    return gradient_descent(latent_loss, start, learning_rate, num_steps)


def finetune_classifier(
    start: tf.Tensor, support_loss: Callable, learning_rate: tf.Tensor, num_steps: int
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Steps on the weights: the release's `finetuning_inner_loop`.

    Returns:
      [B, N, D] weights; F + 1 losses, one before each step and one after all.
    """
    weights, losses = gradient_descent(support_loss, start, learning_rate, num_steps)
    return weights, [*losses, support_loss(weights, num_steps)]


def loss_grew(before: tf.Tensor, after: tf.Tensor, way: int) -> tf.Tensor:
    """[] 1 if an inner loop increased its support's loss or made it non-finite, else 0.

    Up is by more than the loss of guessing, log N: draws and dropout move it by less.
    Where the loss was far beyond guessing before the loop, it is not the loop's fault.

    Args:
      before: [] mean support loss at the loop's start.
      after: [] or [S] mean support losses after some or all of its steps.
      way: N.
    """
    guessing = math.log(way)
    grew = (before < _SANE_LOSS * guessing) & ~tf.reduce_all(after <= before + guessing)
    return tf.cast(grew, before.dtype)


def loss_report(support_losses: list[tf.Tensor], latent_steps: int) -> dict:
    """Returns name -> [] mean of the U + F + 1 losses of LEO's inner loops."""
    way = support_losses[0].shape[1]
    losses = tf.stack(support_losses)  # [U + F + 1, B, N, K]
    path = tf.reduce_mean(losses, axis=[1, 2, 3])  # [U + F + 1]
    means = tf.unstack(path)
    start, middle, end = (means[i] for i in (0, latent_steps, -1))
    return {
        **{f"support_loss_step_{i:02}": mean for i, mean in enumerate(means)},
        "support_loss_start": start,
        "support_loss_latent": middle,
        "support_loss_end": end,
        "support_loss_drop": start - end,
        "grew/inner_lr_init": loss_grew(start, path[: latent_steps + 1], way),
        "grew/finetuning_lr_init": loss_grew(middle, path[latent_steps:], way),
    }
