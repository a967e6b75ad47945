"""The outer loop: one meta-step on a meta-batch of episodes.

Nested GradientTapes: the outer one here, the inner ones in `inner_loop.py`.
Shapes: B tasks in the meta-batch, N way, Q queries per class.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from leo_tf.data_pipeline.episode import Episode
from leo_tf.errors import check_not_forked
from leo_tf.model.learner import Learner, adapt_and_score, loss_parts
from leo_tf.model.losses import accuracy

# Weight of the release's pull towards small weights after a non-finite step.
_NON_FINITE_PULL = 1e-4
# The release's Adam; Keras's own default is 1e-7.
_ADAM_EPSILON = 1e-8
# Prefix of the metrics that tell in which inner loop the support loss grew.
_GREW = "inner_loop/grew/"
# Relative rounding error of a gradient that clipping does not change.
_ROUNDING = 1e-5


def adam(learning_rate: float) -> keras.optimizers.Optimizer:
    """Returns the release's optimizer. Keras cannot do both kinds of clipping."""
    return keras.optimizers.Adam(learning_rate, epsilon=_ADAM_EPSILON, name="adam")


def meta_gradients(
    learner: Learner, episode: Episode, noise: Any = None
) -> tuple[tf.Tensor, list[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the training loss, its second-order gradients and metrics.

    Returns:
      [] loss; a gradient for each of `learner.trainable_variables`, zero where the
      loss does not depend on the variable; a dict of [] numbers: loss, its parts,
      accuracy, the method's `diagnostics`.
    """
    with tf.GradientTape() as tape:
        adapted, logits = adapt_and_score(learner, episode, training=True, noise=noise)
        parts = loss_parts(adapted, logits, episode.query_labels)
        loss = tf.add_n(list(parts.values()))
    variables = [variable.value for variable in learner.trainable_variables]
    gradients = tape.gradient(
        loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    metrics = {
        "loss": loss,
        "accuracy": tf.reduce_mean(accuracy(logits, episode.query_labels)),
        **{f"loss_parts/{name}": part for name, part in parts.items()},
        **{f"inner_loop/{name}": value for name, value in adapted.diagnostics.items()},
    }
    return loss, gradients, metrics


def is_finite(loss: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns [] bool: True if the loss and all entries of all gradients are finite."""
    # 0 * x is 0 only if x is finite, so one sum tests a whole tensor.
    return tf.equal(tf.add_n([0 * loss, *(tf.reduce_sum(0 * g) for g in gradients)]), 0)


def replace_non_finite(
    finite: tf.Tensor, gradients: Sequence[tf.Tensor], learner: Learner
) -> list[tf.Tensor]:
    """Replaces the gradients of a non-finite step by a pull on the kernels.

    Args:
      finite: [] bool, from `is_finite`.
      gradients: one for each of `learner.trainable_variables`.
      learner: the method. Its `kernels` are pulled, other variables stay.

    Returns:
      `gradients` if finite; else 1e-4 times each kernel, zero for all others.

    Source: `LEO.grads_and_vars` in the release's `model.py`. Its docstring means
    this, but its code returns the variables themselves, and divides by
    `l2_penalty_weight`. We also count infinities.
    """
    pulled = {id(kernel) for kernel in learner.kernels}
    replaced = []
    for gradient, variable in zip(gradients, learner.trainable_variables):
        pull = _NON_FINITE_PULL if id(variable) in pulled else 0.0
        instead = pull * tf.convert_to_tensor(variable)
        replaced.append(tf.where(finite, gradient, instead))
    return replaced


def clip_gradients(
    gradients: Sequence[tf.Tensor], value: float, norm: float
) -> list[tf.Tensor]:
    """Clips every entry to [-value, value], then each tensor to `norm`; 0 disables.

    Source: `_clip_gradients` in the release's `runner.py`.
    """
    if value:
        gradients = [tf.clip_by_value(g, -value, value) for g in gradients]
    if norm:
        gradients = [tf.clip_by_norm(g, norm) for g in gradients]
    return list(gradients)


def make_update(
    learner: Learner,
    optimizer: keras.optimizers.Optimizer,
    *,
    gradient_threshold: float,
    gradient_norm_threshold: float,
    apply: Callable = keras.optimizers.Optimizer.apply,
) -> Callable[..., dict[str, tf.Tensor]]:
    """Builds the function that updates `learner` with results of `meta_gradients`.

    It returns the given metrics and more. "non_finite" is 1 for a non-finite step, and
    "non_finite:SETTING", too, if the support loss grew in the inner loop of that rate.

    Args:
      learner: a built method.
      optimizer: optimizer of its trainable variables.
      gradient_threshold, gradient_norm_threshold: see `clip_gradients`.
      apply: called with the optimizer, the clipped gradients and the variables.
    """
    variables = learner.trainable_variables
    optimizer.build(variables)
    names = [variable.path.split("/", 1)[-1] for variable in variables]
    thresholds = gradient_threshold, gradient_norm_threshold

    def update(loss, gradients, metrics):
        finite = is_finite(loss, gradients)
        replaced = replace_non_finite(finite, gradients, learner)
        clipped = clip_gradients(replaced, *thresholds)
        apply(optimizer, clipped, variables)
        norms = clipping_metrics(names, gradients, clipped, *thresholds)
        non_finite = {"non_finite": tf.cast(~finite, tf.float32)}
        for name, value in metrics.items():
            if name.startswith(_GREW):
                grew = ~finite & (value > 0)
                key = f"non_finite:{name.removeprefix(_GREW)}"
                non_finite[key] = tf.cast(grew, tf.float32)
        return {**metrics, **norms, **non_finite}

    return update


def make_meta_step(
    learner: Learner,
    optimizer: keras.optimizers.Optimizer,
    *,
    jit: bool = False,
    gradient_threshold: float,
    gradient_norm_threshold: float,
) -> Callable[[Episode, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Builds the function that updates `learner` on one meta-batch.

    Args:
      jit: compile the update with XLA. The draws are made outside, so that they are
        the same with and without, and because XLA's generator is slow on a CPU.
      learner, optimizer, thresholds: see `make_update`.

    Returns:
      A `tf.function` of an episode, a seed and the number of the step, the last two
      int64 scalars. It returns the metrics of `make_update` in float64.
    """
    check_not_forked()
    thresholds: Any = {
        "gradient_threshold": gradient_threshold,
        "gradient_norm_threshold": gradient_norm_threshold,
    }
    apply_update = make_update(learner, optimizer, **thresholds)
    keys: list[str] = []  # names of the metrics, set when `update` is traced

    def update(episode, noise):
        loss, gradients, metrics = meta_gradients(learner, episode, noise)
        metrics = apply_update(loss, gradients, metrics)
        keys[:] = metrics
        # One tensor, because each output of a compiled function takes microseconds.
        return tf.stack([tf.cast(value, tf.float64) for value in metrics.values()])

    update = tf.function(update, jit_compile=jit, autograph=False)

    @tf.function(autograph=False)
    def meta_step(episode: Episode, seed: tf.Tensor, step: tf.Tensor):
        packed = update(episode, learner.draw_noise(episode, seed, step))
        return dict(zip(keys, tf.unstack(packed)))

    return meta_step


def clipping_metrics(
    names: Sequence[str],
    gradients: Sequence[tf.Tensor],
    clipped: Sequence[tf.Tensor],
    value: float,
    norm: float,
) -> dict[str, tf.Tensor]:
    """Returns the effect of `clip_gradients` on the gradient of each variable.

    Returns:
      "gradient_norm/NAME", "clipped_norm/NAME", and "clipped_share/NAME", which is 1
      if clipping changed the gradient, else 0: [] each.
    """
    # In this case a gradient with an entry beyond `value` also ends at `norm`.
    is_known = norm and (not value or norm <= value)
    metrics = {}
    for name, gradient, rest in zip(names, gradients, clipped, strict=True):
        before = _length(gradient)
        after = tf.minimum(before, norm) if is_known else _length(rest)
        # Rounding may shrink a gradient that is not clipped.
        is_clipped = after < (1 - _ROUNDING) * before
        metrics[f"gradient_norm/{name}"] = before
        metrics[f"clipped_norm/{name}"] = after
        metrics[f"clipped_share/{name}"] = tf.cast(is_clipped, before.dtype)
    return metrics


def _length(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm as a product, because XLA's sum is sequential."""
    size = tensor.shape[-1] if tensor.shape.rank else 1  # a scalar is one row
    rows = tf.reshape(tensor, [-1, size])
    sums = tf.linalg.matvec(rows * rows, tf.ones_like(rows[0]))
    return tf.sqrt(tf.reduce_sum(sums))
