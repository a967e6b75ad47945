"""Golden and random cases for the peers, and both peers behind one interface.

Variables and gradients go by the golden files' names.
"""

import numpy as np
import pytest
from golden_cases import Case
from goldens import golden_io

from leo_tf.configs.schema import Config

# The sizes of random inputs; Z is 8, as in the golden case whose settings they have.
TASKS, WAY, SHOT, QUERIES, SIZE = 6, 3, 2, 4, 7


class PeerCase(Case):
    """A golden case with its settings, data and draws as a peer takes them."""

    @property
    def settings(self) -> Config:
        known = {k: v for k, v in self.config.items() if k in Config().flat()}
        if not self.masked:
            known["dropout_rate"] = 0.0
        return Config().replace(**known)

    def task(self) -> list[np.ndarray]:
        """The four arrays of a peer's `Task`; labels as PyTorch wants them."""
        arrays = [np.asarray(array) for array in self.episode]
        return [a if a.dtype.kind == "f" else a.astype(np.int64) for a in arrays]

    def draws(self) -> list[np.ndarray]:
        """The five arrays of a peer's `Draws`: what the original drew."""
        decodes = self.config["inner_unroll_length"] + 1
        steps = decodes - 1 + self.config["finetuning_unroll_length"]
        normals = self._zeroed("noise_z"), self._zeroed("noise_w")[:, :decodes]
        if not self.masked:
            support, query = self.task()[0].shape, self.task()[2].shape
            inner = support[0], steps, *support[1:]
            return [*normals, *(np.ones(s, bool) for s in (support, inner, query))]
        masks = "mask_encoder", "mask_decode", "mask_finetune", "mask_val"
        encoder, decode, finetune, query = (self.inputs[m].astype(bool) for m in masks)
        # The last mask is for the loss after all steps, which no peer computes.
        support = np.concatenate([decode, finetune], axis=1)[:, :steps]
        return [*normals, encoder, support, query]


class RandomCase(PeerCase):
    """Inputs, variables and draws without a golden, in float64."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        super().__init__("medium_train_dropout")

    def _inputs(self):
        rate, unroll = self.config["dropout_rate"], self.config["inner_unroll_length"]
        finetune = self.config["finetuning_unroll_length"]
        latents, sizes = self.config["num_latents"], (TASKS, WAY, SHOT)
        return {
            **golden_io.make_weights(self.rng, SIZE, latents),
            **golden_io.make_episodes(self.rng, *sizes, QUERIES, SIZE),
            **golden_io.make_noise(self.rng, *sizes, SIZE, latents, unroll),
            **golden_io.make_dropout_masks(
                self.rng, rate, *sizes, QUERIES, SIZE, unroll, finetune
            ),
        }


class JaxPeer:
    """One run of `leo_jax`: its variables, and the state of Adam."""

    def __init__(self, case: PeerCase):
        import jax

        from benchmarks.peers import leo_jax

        self.jax, self.module, self.config = jax, leo_jax, case.settings
        # Without it JAX computes in float32, whatever it is given.
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        variables = {k: np.asarray(v.numpy()) for k, v in case.variables().items()}
        self.params = self._arrays(variables)
        self.task = leo_jax.Task(*self._arrays(case.task()))
        self.draws = leo_jax.Draws(*self._arrays(case.draws()))
        self.state = leo_jax.adam(self.config).init(self.params)
        model = self.config.model
        self._update = jax.jit(lambda *given: leo_jax.update(*given, self.config))
        self._draw = jax.jit(jax.vmap(lambda *given: leo_jax.draw(*given, model)))

    def _arrays(self, values):
        return self.jax.tree.map(self.jax.numpy.asarray, values)

    def gradients(self):
        """Returns loss, accuracy and raw gradients."""

        def loss(params, task, draws):
            return self.module.meta_loss(params, task, draws, self.config.model)

        answer = self.jax.jit(self.jax.value_and_grad(loss, has_aux=True))
        (loss, accuracy), gradients = answer(self.params, self.task, self.draws)
        return float(loss), float(accuracy), gradients

    def mended(self, loss: float, gradients: dict):
        gradients = self._arrays(gradients)
        return self.module.replace_and_clip(gradients, loss, self.params, self.config)

    def step(self) -> float:
        """One meta-step with the recorded draws; its loss."""
        self.params, self.state, (loss, _) = self._update(
            self.params, self.state, self.task, self.draws
        )
        return float(loss)

    def own_draws(self, seed: int) -> list[np.ndarray]:
        """Returns the peer's own draws, with B in front."""
        keys = self.jax.random.split(self.jax.random.key(seed), TASKS)
        return [np.asarray(array) for array in self._draw(keys, self.task)]

    def own_steps(self, count: int) -> list[float]:
        """The losses of steps of the function that is measured."""
        step, losses = self.module.make_step(self.config), []
        for number in range(count):
            key = self.jax.random.key(number)
            self.params, self.state, (loss, _) = step(
                self.params, self.state, self.task, key
            )
            losses.append(float(loss))
        return losses


class TorchPeer:
    """One run of `leo_torch`: its variables, and the state of Adam."""

    def __init__(self, case: PeerCase):
        import torch

        from benchmarks.peers import leo_torch

        self.torch, self.module, self.config = torch, leo_torch, case.settings
        variables = {k: v.numpy() for k, v in case.variables().items()}
        self.params = {k: torch.tensor(v) for k, v in variables.items()}
        self.task = leo_torch.Task(*map(torch.tensor, case.task()))
        self.draws = leo_torch.Draws(*map(torch.tensor, case.draws()))
        self._step = leo_torch.make_step(self.params, self.config, compiled=False)

    def gradients(self):
        answer = self.torch.func.grad_and_value(self.module.meta_loss, has_aux=True)
        gradients, (loss, accuracy) = answer(
            self.params, self.task, self.draws, self.config.model
        )
        return float(loss), float(accuracy), gradients

    def mended(self, loss: float, gradients: dict):
        tensors = {name: self.torch.asarray(g) for name, g in gradients.items()}
        loss = self.torch.tensor(loss)
        return self.module.replace_and_clip(tensors, loss, self.params, self.config)

    def step(self) -> float:
        return float(self._step(self.task, self.draws)[0])

    def own_draws(self, seed: int) -> list[np.ndarray]:
        self.torch.manual_seed(seed)
        return [t.numpy() for t in self.module.draw(self.task, self.config.model)]

    def own_steps(self, count: int) -> list[float]:
        self.torch.manual_seed(0)
        model, losses = self.config.model, []
        for _ in range(count):
            draws = self.module.draw(self.task, model)
            losses.append(float(self._step(self.task, draws)[0]))
        return losses


def peer(kind: str, case: PeerCase) -> JaxPeer | TorchPeer:
    """The peer "jax" or "torch" on a case; skips the test if it is not installed."""
    for package in ("jax", "optax") if kind == "jax" else ("torch",):
        pytest.importorskip(package, reason="the extra `peers` is not installed")
    return {"jax": JaxPeer, "torch": TorchPeer}[kind](case)
