"""LEO once more, in plain NumPy: one task, one example, one formula at a time.

Written from the paper's equations and the release's `model.py`, with gradients by hand
where the inner loops need them. It shares nothing with `leo_tf`.

Shapes: N way, K shot, Q queries per class, D embedding size, Z latent size.
"""

import math

import numpy as np


def relation_network(codes, kernels):
    """[N, 2 * Z] of codes [N, K, Z]: every ordered pair through every layer."""
    way, shot, size = codes.shape
    everyone = codes.reshape(way * shot, size)
    per_class = np.zeros([way, 2 * size])
    for n in range(way):
        for k in range(shot):
            for other in everyone:
                pair = np.concatenate([codes[n, k], other])
                hidden = np.maximum(pair @ kernels[0], 0)
                hidden = np.maximum(hidden @ kernels[1], 0)
                per_class[n] += hidden @ kernels[2] / (len(everyone) * shot)
    return per_class


def orthogonality_penalty(kernel):
    """Returns the penalty [] of a kernel [Z, P]."""
    size, total = len(kernel), 0.0
    for i in range(size):
        for j in range(size):
            norms = math.sqrt(sum(kernel[i] ** 2)) * math.sqrt(sum(kernel[j] ** 2))
            total += (kernel[i] @ kernel[j] / norms - (i == j)) ** 2
    return total / size**2


def cross_entropy(scores, label):
    """Returns the loss [] of the scores [N] of one example."""
    return math.log(sum(math.exp(score - scores[label]) for score in scores))


class NumpyTask:
    """Computes LEO on one task with NumPy.

    Args:
      variables: dict of the seven arrays, and with a residual of its logarithms.
      config: the `ModelConfig`.
      support: [N, K, D].
      labels: [N, K].
      noise: `Noise` of this task alone, without a task axis, or None.
    """

    def __init__(self, variables, config, support, labels, noise=None):
        self.variables, self.config, self.noise = variables, config, noise
        self.support, self.labels = support, labels
        self.way, self.shot, self.size = support.shape
        self.support_losses = []
        self.closed_form = self._closed_form()

    def adapt(self):
        """[N, D] classifier; leaves `penalties`, `start`, `adapted`, and losses."""
        self.start, kl = self._sampled_latents()
        latents = self.start.copy()
        rates = self.variables["inner_lr"].ravel()
        for step in range(self.config.inner_unroll_length):
            weights, slopes = self._decode(latents, step)
            gradient = self._support_gradient(weights, step)
            for n, k in np.ndindex(self.way, self.shot):
                latents[n, k] -= rates * (slopes[n, k] @ gradient[n, k])
        self.adapted = latents
        weights, _ = self._decode(latents, self.config.inner_unroll_length)
        rates = self.variables["finetuning_lr"].ravel()
        steps = self.config.finetuning_unroll_length
        if self.noise is None and self.config.test_finetuning_steps is not None:
            steps = self.config.test_finetuning_steps
        for step in range(steps):
            gradient = self._support_gradient(
                weights, self.config.inner_unroll_length + step
            )
            weights = weights - rates * gradient
        self._support_gradient(weights, -1)
        self.penalties = self._penalties(kl)
        return weights.mean(axis=1)

    def logits(self, classifier, queries):
        """[N, Q, N] scores of queries [N, Q, D]."""
        queries = self._dropped(queries, self.noise and self.noise.query_mask)
        return np.array([[classifier @ query for query in row] for row in queries])

    def _dropped(self, inputs, mask):
        if self.noise is None:
            return inputs
        return np.where(mask, inputs / (1 - self.config.dropout_rate), 0)

    def _sampled_latents(self):
        inputs = self._dropped(self.support, self.noise and self.noise.encoder_mask)
        parameters = relation_network(
            inputs @ self.variables["encoder"],
            [self.variables[f"relation_{i}"] for i in range(3)],
        )
        size = parameters.shape[1] // 2
        latents, kl = np.zeros([self.way, self.shot, size]), []
        for n, k, i in np.ndindex(self.way, self.shot, size):
            mean, raw = parameters[n, i], parameters[n, size + i]
            latents[n, k, i] = mean
            if self.noise is not None:
                stddev, drawn = max(math.exp(raw) - 1, 1e-10), self.noise.latents
                latents[n, k, i] = z = mean + stddev * drawn[n, k, i]
                log_q = -(drawn[n, k, i] ** 2) / 2 - math.log(stddev)
                kl.append(log_q + z**2 / 2)
        return latents, kl

    def _closed_form(self):
        """[N, D] that decoded weights are added to."""
        if self.config.residual == "none":
            return np.zeros([self.way, self.size])
        scale = math.exp(self.variables["log_scale"])
        if self.config.residual == "centroid":
            means = self.support.mean(axis=1)
            return scale * np.array([mean / math.sqrt(mean @ mean) for mean in means])
        examples = self.support.reshape(-1, self.size)
        targets = np.eye(self.way)[self.labels.ravel()]
        penalty = math.exp(self.variables["log_strength"]) * np.eye(self.size)
        gram = examples.T @ examples + penalty
        return scale * np.linalg.solve(gram, examples.T @ targets).T

    def _decode(self, latents, step):
        """Weights [N, K, D], and their derivatives [N, K, Z, D] by the latents."""
        means, raws = np.split(self.variables["decoder"], 2, axis=1)  # 2 x [Z, D]
        offset = math.sqrt(2 / (self.way + self.size))
        weights = np.zeros([self.way, self.shot, self.size])
        slopes = np.zeros([*latents.shape, self.size])
        for n, k, d in np.ndindex(weights.shape):
            weights[n, k, d] = self.closed_form[n, d] + latents[n, k] @ means[:, d]
            slopes[n, k, :, d] = means[:, d]
            if self.noise is not None:
                drawn = self.noise.weights[step][n, k, d]
                grown = math.exp(latents[n, k] @ raws[:, d])
                weights[n, k, d] += drawn * max(grown - (1 - offset), 1e-10)
                if grown - (1 - offset) > 1e-10:
                    slopes[n, k, :, d] += drawn * grown * raws[:, d]
        return weights, slopes

    def _support_gradient(self, weights, step):
        """Returns the gradient of the summed support loss by weights [N, K, D]."""
        inputs = self._dropped(
            self.support, self.noise and self.noise.support_masks[step]
        )
        classifier, gradient = weights.mean(axis=1), np.zeros_like(weights)
        losses = np.zeros([self.way, self.shot])
        for n, k in np.ndindex(losses.shape):
            scores = classifier @ inputs[n, k]
            losses[n, k] = cross_entropy(scores, self.labels[n, k])
            shares = np.exp(scores) / np.exp(scores).sum()
            shares[self.labels[n, k]] -= 1
            for c in range(self.way):  # each of K vectors has its share in the mean
                gradient[c] += shares[c] * inputs[n, k] / self.shot
        self.support_losses.append(losses)
        return gradient

    def _penalties(self, kl):
        config = self.config
        others = "inner_lr", "finetuning_lr", "log_scale", "log_strength"
        kernels = [v for name, v in self.variables.items() if name not in others]
        squares = sum((kernel**2).sum() for kernel in kernels)
        orthogonality = orthogonality_penalty(self.variables["decoder"])
        penalties = {
            "l2": config.l2_penalty_weight * squares / 2,
            "orthogonality": config.orthogonality_penalty_weight * orthogonality,
        }
        if self.noise is not None:
            moved = np.mean((self.adapted - self.start) ** 2)
            penalties["encoder"] = config.encoder_penalty_weight * moved
            penalties["kl"] = config.kl_weight * np.mean(kl)
        return penalties
