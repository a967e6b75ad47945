"""LEO's training step in plain PyTorch, as a peer to compare leo_tf with.

Written as a user of PyTorch would write it: one task's loss, torch.func's vmap over
tasks and grad through the inner loop's grads, PyTorch's generator and Adam. It computes
what leo_tf computes in training, but for the loss after the last fine-tuning step,
which leo_tf only shows. Source: arXiv:1807.05960; github.com/google-deepmind/leo.

Shapes: B tasks in the meta-batch, N way, K shot, Q queries per class, D embedding
size, Z latent size, U latent steps, F fine-tuning steps. Functions are of one task and
have no B, unless they say "meta-batch".
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from leo_tf.configs.schema import Config, ModelConfig
from leo_tf.model.leo import first_inner_lr

KERNELS = ("encoder_w", "relation_w0", "relation_w1", "relation_w2", "decoder_w")


class Task(NamedTuple):
    support_inputs: Tensor  # [N, K, D]
    support_labels: Tensor  # [N, K] int64
    query_inputs: Tensor  # [N, Q, D]
    query_labels: Tensor  # [N, Q] int64


class Draws(NamedTuple):
    """Standard normals, and masks that are true where dropout keeps."""

    latents: Tensor  # [N, K, Z]
    weights: Tensor  # [U + 1, N, K, D], one for each decode
    encoder_keep: Tensor  # [N, K, D]
    support_keep: Tensor  # [U + F, N, K, D], one for each inner step
    query_keep: Tensor  # [N, Q, D]


def init_params(size: int, config: ModelConfig) -> dict[str, Tensor]:
    """The seven variables for embeddings of `size` D: Glorot-uniform kernels."""
    z = config.num_latents
    shapes = [(size, z), *[(2 * z, 2 * z)] * 3, (z, 2 * size)]
    glorot = torch.nn.init.xavier_uniform_
    return {
        **{name: glorot(torch.empty(shape)) for name, shape in zip(KERNELS, shapes)},
        "inner_lr": torch.full((1, 1, z), first_inner_lr(config, size)),
        "finetuning_lr": torch.full((1, 1, size), config.finetuning_lr_init),
    }


def draw(batch: Task, config: ModelConfig) -> Draws:
    """The draws of a meta-batch, from PyTorch's default generator."""
    tasks, *support = batch.support_inputs.shape
    latent_steps = config.inner_unroll_length
    steps = latent_steps + config.finetuning_unroll_length

    def keep(*shape):
        return torch.rand(shape) >= config.dropout_rate  # faster than bernoulli_

    return Draws(
        latents=torch.randn(tasks, *support[:-1], config.num_latents),
        weights=torch.randn(tasks, latent_steps + 1, *support),
        encoder_keep=keep(tasks, *support),
        support_keep=keep(tasks, steps, *support),
        query_keep=keep(*batch.query_inputs.shape),
    )


def dropout(inputs: Tensor, keep: Tensor, config: ModelConfig) -> Tensor:
    return inputs * keep / (1 - config.dropout_rate)


def mean_and_stddev(parameters: Tensor, offset: float = 0.0):
    mean, raw = parameters.chunk(2, dim=-1)
    return mean, (raw.exp() - (1 - offset)).clamp(min=1e-10)


def relation_network(params: dict, codes: Tensor) -> Tensor:
    """[N, K, 2 * Z] means and raw stddevs; the K of a class are equal."""
    way, shot, size = codes.shape
    total = way * shot
    examples = codes.reshape(total, size)
    left = examples[:, None].expand(total, total, size)
    right = examples[None].expand(total, total, size)
    pairs = torch.cat([left, right], dim=-1)  # [N*K, N*K, 2*Z]
    hidden = torch.relu(pairs @ params["relation_w0"])
    hidden = torch.relu(hidden @ params["relation_w1"])
    per_example = (hidden @ params["relation_w2"]).mean(dim=1)  # [N*K, 2*Z]
    per_class = per_example.reshape(way, shot, -1).mean(dim=1, keepdim=True)
    return per_class.expand(way, shot, -1)


def decode(params: dict, latents: Tensor, noise: Tensor) -> Tensor:
    """[N, K, D] weights of a classifier, sampled."""
    offset = math.sqrt(2 / (noise.shape[0] + noise.shape[-1]))
    mean, stddev = mean_and_stddev(latents @ params["decoder_w"], offset)
    return mean + stddev * noise


def scores(weights: Tensor, inputs: Tensor) -> Tensor:
    """[N, ..., N] logits; the K classifiers of a class are averaged."""
    return inputs @ weights.mean(dim=1).T


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    flat = logits.flatten(0, -2), labels.flatten()
    return functional.cross_entropy(*flat, reduction=reduction)


def adapt(params: dict, start: Tensor, task: Task, draws: Draws, config: ModelConfig):
    """Both inner loops: adapted latents [N, K, Z] and fine-tuned weights [N, K, D]."""

    def weights_loss(weights, step):
        inputs = dropout(task.support_inputs, draws.support_keep[step], config)
        return cross_entropy(scores(weights, inputs), task.support_labels, "sum")

    def latents_loss(latents, step):
        return weights_loss(decode(params, latents, draws.weights[step]), step)

    latents, latent_steps = start, config.inner_unroll_length
    for step in range(latent_steps):
        gradient = torch.func.grad(latents_loss)(latents, step)
        latents = latents - params["inner_lr"] * gradient
    weights = decode(params, latents, draws.weights[latent_steps])
    for step in range(latent_steps, latent_steps + config.finetuning_unroll_length):
        gradient = torch.func.grad(weights_loss)(weights, step)
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
    query_loss = cross_entropy(logits, task.query_labels, "mean")
    # log q(z) - log p(z), with log q of the noise that z was made of
    kl = torch.mean((start**2 - draws.latents**2) / 2 - stddev.log())
    penalty = torch.mean((latents.detach() - start) ** 2)
    loss = query_loss + config.kl_weight * kl + config.encoder_penalty_weight * penalty
    return loss, (logits.argmax(dim=-1) == task.query_labels).float().mean()


def regularizers(params: dict, config: ModelConfig) -> Tensor:
    """L2 of the kernels and orthogonality of the decoder's rows."""
    l2 = sum((params[name] ** 2).sum() for name in KERNELS) / 2
    rows = functional.normalize(params["decoder_w"], dim=1)  # [Z, 2*D]
    identity = torch.eye(len(rows), dtype=rows.dtype)
    excess = torch.mean((rows @ rows.T - identity) ** 2)
    return config.l2_penalty_weight * l2 + config.orthogonality_penalty_weight * excess


def meta_loss(params: dict, batch: Task, draws: Draws, config: ModelConfig):
    """The outer loss and the query accuracy of a meta-batch."""
    of_task = functools.partial(task_loss, config=config)
    of_batch = torch.func.vmap(of_task, in_dims=(None, 0, 0))
    losses, accuracies = of_batch(params, batch, draws)
    return losses.mean() + regularizers(params, config), accuracies.mean()


def replace_and_clip(
    gradients: dict, loss: Tensor, params: dict, config: Config
) -> dict:
    """Clipped gradients, by the release's rule if the step is non-finite."""
    parts = loss, *gradients.values()
    finite = torch.stack([part.isfinite().all() for part in parts]).all()
    value = config.optimizer.gradient_threshold
    limit = config.optimizer.gradient_norm_threshold

    def mend(name, gradient):
        pull = 1e-4 * params[name] if name in KERNELS else torch.zeros_like(gradient)
        gradient = torch.where(finite, gradient, pull).clamp(-value, value)
        return gradient * limit / gradient.norm().clamp(min=limit)

    return {name: mend(name, gradient) for name, gradient in gradients.items()}


def final_gradients(params: dict, batch: Task, draws: Draws, config: Config):
    """Returns Adam's input from a meta-step with given draws; loss and accuracy."""
    grad_and_value = torch.func.grad_and_value(meta_loss, has_aux=True)
    gradients, metrics = grad_and_value(params, batch, draws, config.model)
    return replace_and_clip(gradients, metrics[0], params, config), metrics


def make_step(params: dict, config: Config, compiled: bool) -> Callable:
    """A function of a meta-batch and its draws that updates `params` in place."""
    optimizer = torch.optim.Adam(params.values(), config.optimizer.outer_lr, eps=1e-8)
    gradients_of = final_gradients
    if compiled:
        gradients_of = torch.compile(final_gradients, dynamic=False)

    def step(batch: Task, draws: Draws):
        gradients, metrics = gradients_of(params, batch, draws, config)
        for name, gradient in gradients.items():
            params[name].grad = gradient
        optimizer.step()
        return metrics

    return step
