"""The inner loop, shared by LEO (latents, then weights) and other gradient learners."""

from collections.abc import Callable

import tensorflow as tf


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
      num_steps: how many steps; Python int, the loop is unrolled into the graph.
      first_order: take the steps' gradients for constants: an outer tape does not see
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
