"""The outer loop: one meta-step on a meta-batch of episodes.

Nested GradientTapes: the outer one here, the inner ones in `adaptation.py`.
Shapes: B tasks in the meta-batch, N way, Q queries per class.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from data_pipeline.episode import Episode
from leo_tf import step_metrics
from leo_tf.learner import Adapted, Learner
from leo_tf.losses import accuracy, cross_entropy

# The release's pull towards small weights when a step is not finite.
_NON_FINITE_PULL = 1e-4
# The release's Adam; Keras's own default is 1e-7.
_ADAM_EPSILON = 1e-8


def adam(learning_rate: float) -> keras.optimizers.Optimizer:
    """The release's optimizer. Clipping is ours, as Keras refuses to do both kinds."""
    return keras.optimizers.Adam(learning_rate, epsilon=_ADAM_EPSILON, name="adam")


def answer(
    learner: Learner, episode: Episode, training: bool = False, noise=None
) -> tuple[Adapted, tf.Tensor]:
    """Adapts to the supports, then scores the queries.

    Args:
      learner: the method.
      episode: a meta-batch.
      training: whether to draw samples and drop out.
      noise: what to draw with, from `learner.draw_noise`.

    Returns:
      What adaptation gave, and the [B, N, Q, N] logits of the queries.
    """
    mode = {"training": training, "noise": noise}
    adapted = learner.adapt(episode.support_inputs, episode.support_labels, **mode)
    return adapted, learner.logits(adapted.classifier, episode.query_inputs, **mode)


def loss_parts(
    adapted: Adapted, logits: tf.Tensor, query_labels: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The terms whose sum is the outer loss, each [] and averaged over tasks.

    "query" is the mean query cross-entropy; the others are the method's penalties.

    Source: arXiv:1807.05960, equation 6; `LEO._build` in the release's `model.py`.
    """
    query = tf.reduce_mean(cross_entropy(logits, query_labels))
    penalties = {name: tf.reduce_mean(part) for name, part in adapted.penalties.items()}
    return {"query": query, **penalties}


def meta_gradients(
    learner: Learner, episode: Episode, noise=None
) -> tuple[tf.Tensor, list[tf.Tensor], dict[str, tf.Tensor]]:
    """The training loss, its gradients and metrics; second order, nothing mended.

    Returns:
      [] loss; a gradient for each of `learner.trainable_variables`, zero where the
      loss does not depend on the variable; a dict of [] numbers: loss, its parts,
      accuracy, the method's health.
    """
    with tf.GradientTape() as tape:
        adapted, logits = answer(learner, episode, training=True, noise=noise)
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
        **{f"inner_loop/{name}": value for name, value in adapted.health.items()},
    }
    return loss, gradients, metrics


def is_finite(loss: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """[] bool: whether the loss and every entry of every gradient is finite."""
    # 0 * x is 0 exactly if x is finite, so one sum tells for a whole tensor.
    return tf.equal(tf.add_n([0 * loss, *(tf.reduce_sum(0 * g) for g in gradients)]), 0)


def mend_gradients(
    finite: tf.Tensor, gradients: Sequence[tf.Tensor], learner: Learner
) -> list[tf.Tensor]:
    """Replaces the gradients of a step that is not finite by a pull on the kernels.

    Args:
      finite: [] bool, from `is_finite`.
      gradients: one for each of `learner.trainable_variables`.
      learner: the method; its `kernels` are pulled, other variables stay.

    Returns:
      `gradients` if finite; else 1e-4 times each kernel, zero for all others.

    Source: `LEO.grads_and_vars` in the release's `model.py`. Its docstring means
    this, but its code hands back the variables themselves, and divides by
    `l2_penalty_weight`. We also count infinities.
    """
    pulled = {id(kernel) for kernel in learner.kernels}
    mended = []
    for gradient, variable in zip(gradients, learner.trainable_variables):
        pull = _NON_FINITE_PULL if id(variable) in pulled else 0.0
        instead = pull * tf.convert_to_tensor(variable)
        mended.append(tf.where(finite, gradient, instead))
    return mended


def clip_gradients(
    gradients: Sequence[tf.Tensor], value: float, norm: float
) -> list[tf.Tensor]:
    """Clips every entry to [-value, value], then each tensor by itself to `norm`.

    A threshold of 0 switches that clipping off.

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
    """Builds the function that updates `learner` by what `meta_gradients` returns.

    It returns the metrics with more of them; "non_finite" is 1 if it had to mend.

    Args:
      learner: a built method.
      optimizer: of its trainable variables.
      gradient_threshold: for each entry, see `clip_gradients`.
      gradient_norm_threshold: for each tensor.
      apply: called with the optimizer, the clipped gradients and the variables.
    """
    variables = learner.trainable_variables
    optimizer.build(variables)
    names = [variable.path.split("/", 1)[-1] for variable in variables]
    thresholds = gradient_threshold, gradient_norm_threshold

    def update(loss, gradients, metrics):
        finite = is_finite(loss, gradients)
        mended = mend_gradients(finite, gradients, learner)
        clipped = clip_gradients(mended, *thresholds)
        apply(optimizer, clipped, variables)
        norms = step_metrics.clipping(names, gradients, clipped, *thresholds)
        return {**metrics, **norms, "non_finite": 1.0 - tf.cast(finite, tf.float32)}

    return update


def make_meta_step(
    learner: Learner,
    optimizer: keras.optimizers.Optimizer,
    *,
    jit: bool = False,
    **thresholds: float,
) -> Callable[[Episode, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Builds the function that updates `learner` on one meta-batch.

    Args:
      learner, optimizer, thresholds: see `make_update`.
      jit: compile the update with XLA. The draws are made outside of it: they are
        the same with and without, and XLA's generator is far slower on a CPU.

    Returns:
      A `tf.function` of an episode, a seed and the number of the step, the last two
      int64 scalars; it returns the metrics of `make_update`, in float64.
    """
    mend_and_apply = make_update(learner, optimizer, **thresholds)
    keys = []  # of the metrics, as soon as `update` is traced

    def update(episode, noise):
        loss, gradients, metrics = meta_gradients(learner, episode, noise)
        metrics = mend_and_apply(loss, gradients, metrics)
        keys[:] = metrics
        # In one tensor: each output of a compiled function takes microseconds.
        return tf.stack([tf.cast(value, tf.float64) for value in metrics.values()])

    update = tf.function(update, jit_compile=jit, autograph=False)

    @tf.function(autograph=False)
    def meta_step(episode: Episode, seed: tf.Tensor, step: tf.Tensor):
        packed = update(episode, learner.draw_noise(episode, seed, step))
        return dict(zip(keys, tf.unstack(packed)))

    return meta_step


def make_run_steps(meta_step: Callable, seed: int, watch: bool = False) -> Callable:
    """Builds the function that makes many meta-steps in one call from the host.

    Args:
      meta_step: from `make_meta_step`.
      seed: of the run.
      watch: return how long steps waited for input, too.

    Returns:
      A `tf.function` of an iterator over episodes, the number of the first step and
      how many to make, int64 scalars. It returns metrics summed over the steps that
      were finite, and "non_finite", the number of those that were not. "input_wait"
      is in seconds: the time from the end of a step, or the beginning of the call,
      until the next episodes were there, summed.
    """
    keys = []  # of the metrics, as soon as a step is traced

    @tf.function(autograph=False)
    def run_steps(iterator, first, count):
        number = tf.constant(seed, tf.int64)

        def make_step(step, previous):
            episode, waited = step_metrics.next_timed(iterator, previous)
            metrics = meta_step(episode, number, step)
            keys[:] = metrics
            return step_metrics.if_finite(metrics), waited

        def next_step(step, totals, waiting):
            more, waited = make_step(step, totals)
            return step + 1, totals + more, waiting + waited

        end, (totals, waiting) = first + count, make_step(first, first)
        _, totals, waiting = tf.while_loop(
            lambda step, *_: step < end, next_step, (first + 1, totals, waiting)
        )
        sums = dict(zip(keys, tf.unstack(totals)))
        return {**sums, "input_wait": waiting} if watch else sums

    return run_steps
