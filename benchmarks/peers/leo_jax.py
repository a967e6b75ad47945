"""LEO's training step in plain JAX, as a peer to compare leo_tf with.

Written as a user of JAX would write it: one task's loss, vmap over tasks, grad through
the inner loop's grads, jit around the step, JAX's default generator, optax. It computes
what leo_tf computes in training, but for the loss after the last fine-tuning step,
which leo_tf only shows. Source: arXiv:1807.05960; github.com/google-deepmind/leo.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps. Functions are of one task and
have no B, unless they say "meta-batch".
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from leo_tf.configs.schema import Config, ModelConfig
from leo_tf.model.leo import first_inner_lr

KERNELS = ("encoder_w", "relation_w0", "relation_w1", "relation_w2", "decoder_w")
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


class Task(NamedTuple):
    support_inputs: jax.Array  # [N, K, D]
    support_labels: jax.Array  # [N, K]
    query_inputs: jax.Array  # [N, Q, D]
    query_labels: jax.Array  # [N, Q]


class Draws(NamedTuple):
    """Standard normals, and masks that are true where dropout keeps."""

    latents: jax.Array  # [N, K, Z]
    weights: jax.Array  # [U + 1, N, K, D], one for each decode
    encoder_keep: jax.Array  # [N, K, D]
    support_keep: jax.Array  # [U + F, N, K, D], one for each inner step
    query_keep: jax.Array  # [N, Q, D]


def init_params(key: jax.Array, size: int, config: ModelConfig) -> dict:
    """The seven variables for embeddings of `size` D: Glorot-uniform kernels."""
    z = config.num_latents
    shapes = [(size, z), *[(2 * z, 2 * z)] * 3, (z, 2 * size)]
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(KERNELS))
    # The dtype is given, or the step would be compiled twice: for weak types first.
    rates = functools.partial(jnp.full, dtype=jnp.float32)
    return {
        **{name: glorot(k, shape) for name, k, shape in zip(KERNELS, keys, shapes)},
        "inner_lr": rates((1, 1, z), first_inner_lr(config, size)),
        "finetuning_lr": rates((1, 1, size), config.finetuning_lr_init),
    }


def draw(key: jax.Array, task: Task, config: ModelConfig) -> Draws:
    keys = jax.random.split(key, 5)
    support, query = task.support_inputs.shape, task.query_inputs.shape
    latent_steps = config.inner_unroll_length
    steps = latent_steps + config.finetuning_unroll_length
    keep = functools.partial(jax.random.bernoulli, p=1 - config.dropout_rate)
    return Draws(
        latents=jax.random.normal(keys[0], (*support[:-1], config.num_latents)),
        weights=jax.random.normal(keys[1], (latent_steps + 1, *support)),
        encoder_keep=keep(keys[2], shape=support),
        support_keep=keep(keys[3], shape=(steps, *support)),
        query_keep=keep(keys[4], shape=query),
    )


def dropout(inputs: jax.Array, keep: jax.Array, config: ModelConfig) -> jax.Array:
    return jnp.where(keep, inputs / (1 - config.dropout_rate), 0)


def mean_and_stddev(parameters: jax.Array, offset: float = 0.0):
    mean, raw = jnp.split(parameters, 2, axis=-1)
    return mean, jnp.maximum(jnp.exp(raw) - (1 - offset), 1e-10)


def relation_network(params: dict, codes: jax.Array) -> jax.Array:
    """[N, K, 2 * Z] means and raw stddevs; the K of a class are equal."""
    way, shot, size = codes.shape
    total = way * shot
    examples = codes.reshape(total, size)
    left = jnp.broadcast_to(examples[:, None], (total, total, size))
    right = jnp.broadcast_to(examples[None], (total, total, size))
    pairs = jnp.concatenate([left, right], axis=-1)  # [N*K, N*K, 2*Z]
    hidden = jax.nn.relu(pairs @ params["relation_w0"])
    hidden = jax.nn.relu(hidden @ params["relation_w1"])
    per_example = jnp.mean(hidden @ params["relation_w2"], axis=1)  # [N*K, 2*Z]
    per_class = per_example.reshape(way, shot, -1).mean(axis=1, keepdims=True)
    return jnp.repeat(per_class, shot, axis=1)


def decode(params: dict, latents: jax.Array, noise: jax.Array) -> jax.Array:
    """[N, K, D] weights of a classifier, sampled."""
    offset = math.sqrt(2 / (noise.shape[0] + noise.shape[-1]))
    mean, stddev = mean_and_stddev(latents @ params["decoder_w"], offset)
    return mean + stddev * noise


def scores(weights: jax.Array, inputs: jax.Array) -> jax.Array:
    """[N, ..., N] logits; the K classifiers of a class are averaged."""
    return inputs @ weights.mean(axis=1).T


def adapt(params: dict, start: jax.Array, task: Task, draws: Draws, config):
    """Both inner loops: adapted latents [N, K, Z] and fine-tuned weights [N, K, D]."""

    def weights_loss(weights, step):
        inputs = dropout(task.support_inputs, draws.support_keep[step], config)
        return cross_entropy(scores(weights, inputs), task.support_labels).sum()

    def latents_loss(latents, step):
        return weights_loss(decode(params, latents, draws.weights[step]), step)

    latents, latent_steps = start, config.inner_unroll_length
    for step in range(latent_steps):
        gradient = jax.grad(latents_loss)(latents, step)
        latents = latents - params["inner_lr"] * gradient
    weights = decode(params, latents, draws.weights[latent_steps])
    for step in range(latent_steps, latent_steps + config.finetuning_unroll_length):
        gradient = jax.grad(weights_loss)(weights, step)
        weights = weights - params["finetuning_lr"] * gradient
    return latents, weights


def task_loss(params: dict, task: Task, draws: Draws, config: ModelConfig):
    """Query loss and the penalties of one task; its query accuracy."""
    inputs = dropout(task.support_inputs, draws.encoder_keep, config)
    parameters = relation_network(params, inputs @ params["encoder_w"])
    mean, stddev = mean_and_stddev(parameters)
    start = mean + stddev * draws.latents  # [N, K, Z]
    latents, weights = adapt(params, start, task, draws, config)
    logits = scores(weights, dropout(task.query_inputs, draws.query_keep, config))
    query_loss = cross_entropy(logits, task.query_labels).mean()
    # log q(z) - log p(z), with log q of the noise that z was made of
    kl = jnp.mean((start**2 - draws.latents**2) / 2 - jnp.log(stddev))
    penalty = jnp.mean((jax.lax.stop_gradient(latents) - start) ** 2)
    loss = query_loss + config.kl_weight * kl + config.encoder_penalty_weight * penalty
    return loss, jnp.mean(jnp.argmax(logits, axis=-1) == task.query_labels)


def regularizers(params: dict, config: ModelConfig) -> jax.Array:
    """L2 of the kernels and orthogonality of the decoder's rows."""
    l2 = sum(jnp.sum(params[name] ** 2) for name in KERNELS) / 2
    kernel = params["decoder_w"]  # [Z, 2*D]
    rows = kernel / jnp.linalg.norm(kernel, axis=1, keepdims=True)
    excess = jnp.mean((rows @ rows.T - jnp.eye(len(rows))) ** 2)
    return config.l2_penalty_weight * l2 + config.orthogonality_penalty_weight * excess


def meta_loss(params: dict, batch: Task, draws: Draws, config: ModelConfig):
    """The outer loss and the query accuracy of a meta-batch."""
    of_task = functools.partial(task_loss, config=config)
    losses, accuracies = jax.vmap(of_task, in_axes=(None, 0, 0))(params, batch, draws)
    return losses.mean() + regularizers(params, config), accuracies.mean()


def replace_and_clip(gradients: dict, loss, params: dict, config: Config) -> dict:
    """Clipped gradients, by the release's rule if the step is non-finite."""
    parts = loss, *gradients.values()
    finite = jnp.stack([jnp.isfinite(part).all() for part in parts]).all()
    value = config.optimizer.gradient_threshold
    limit = config.optimizer.gradient_norm_threshold

    def mend(name, gradient):
        pull = 1e-4 * params[name] if name in KERNELS else jnp.zeros_like(gradient)
        gradient = jnp.clip(jnp.where(finite, gradient, pull), -value, value)
        return gradient * limit / jnp.maximum(jnp.linalg.norm(gradient), limit)

    return {name: mend(name, gradient) for name, gradient in gradients.items()}


def adam(config: Config) -> optax.GradientTransformation:
    return optax.adam(config.optimizer.outer_lr, eps=1e-8)


def update(params: dict, state, batch: Task, draws: Draws, config: Config):
    """One meta-step with given draws: new parameters and Adam state, metrics."""
    value_and_grad = jax.value_and_grad(meta_loss, has_aux=True)
    metrics, gradients = value_and_grad(params, batch, draws, config.model)
    gradients = replace_and_clip(gradients, metrics[0], params, config)
    updates, state = adam(config).update(gradients, state)
    return optax.apply_updates(params, updates), state, metrics


def make_step(config: Config):
    """The compiled meta-step: (params, state, batch, key) -> what `update` returns."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch, key):
        keys = jax.random.split(key, len(batch.support_inputs))
        draws = jax.vmap(functools.partial(draw, config=config.model))(keys, batch)
        return update(params, state, batch, draws, config)

    return step
