"""Loads a golden case: the original's inputs, variables, noise, masks and answers."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
from goldens import golden_io

from leo_tf.configs.schema import ModelConfig
from leo_tf.data_pipeline.episode import Episode
from leo_tf.model.leo import LEO
from leo_tf.model.noise import Noise, no_noise

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens"
CONFIGS = json.loads((GOLDENS / "configs.json").read_text())
FLOAT64_CASES = [name for name in CONFIGS if not name.startswith("large_")]
FLOAT64_CASES.append("large_clamped_train")
NAN_CASES = ["small_nan_grad", "small_nan_loss"]
_MODEL_FIELDS = [field.name for field in dataclasses.fields(ModelConfig)]


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


class Replayed(LEO):
    """LEO that draws what the original drew."""

    def draw_noise(self, episode, seed, step):
        return self.recorded


class Case:
    """One golden file, with a model that holds its variables."""

    def __init__(self, name: str):
        self.name = name
        self.config = CONFIGS[name]
        self.answers = arrays(name)
        self.training = not name.endswith("_eval")
        self.dtype = "float64" if name in FLOAT64_CASES else "float32"
        self.inputs = self._inputs()
        self.masked = "dropout" in name
        self.episode = self._episode()
        self.leo = self._model()
        self.noise = self.leo.recorded = self._noise()

    def variables(self) -> dict:
        """The seven variables by the golden files' names."""
        leo = self.leo
        relation = leo.relation_network.kernels
        kernels = [leo.encoder.kernel, *relation, leo.decoder.kernel]
        values = [*kernels, leo.inner_lr, leo.finetuning_lr]
        return dict(zip(golden_io.VAR_KEYS, values))

    def _inputs(self):
        size = self.name.split("_")[0]
        if size != "large":
            return arrays(f"{size}_inputs")
        inputs = {
            **arrays("large_weights"),
            **arrays(f"large_k{self.config['K']}_inputs"),
        }
        if self.name == "large_clamped_train":
            weights = {key: inputs[key] for key in golden_io.VAR_KEYS}
            inputs.update(golden_io.clamp_odd_latents(weights))
        return inputs

    def _array(self, key):
        return self.inputs[key].astype(self.dtype)

    def _episode(self):
        return Episode(
            support_inputs=self._array("tr_input"),
            support_labels=self.inputs["tr_output"][..., 0],
            query_inputs=self._array("val_input"),
            query_labels=self.inputs["val_output"][..., 0],
        )

    def _model(self):
        shared = [field for field in _MODEL_FIELDS if field in self.config]
        fields = {field: self.config[field] for field in shared}
        if not self.masked:
            fields["dropout_rate"] = 0.0
        leo = Replayed(ModelConfig(**fields), dtype=self.dtype)
        leo.build(self.episode.support_inputs.shape)
        self.leo = leo
        for key, variable in self.variables().items():
            variable.assign(self._array(key))
        return leo

    def _noise(self) -> Noise:
        latent_steps = self.config["inner_unroll_length"]
        noise = no_noise(latent_steps, self.config["finetuning_unroll_length"])
        if not self.training:
            return noise
        noise = noise._replace(latents=self._zeroed("noise_z"))
        weights = self._zeroed("noise_w")[:, : latent_steps + 1]
        noise = noise._replace(weights=tuple(np.moveaxis(weights, 1, 0)))
        if not self.masked:
            return noise
        support = np.concatenate(
            [self._mask("mask_decode"), self._mask("mask_finetune")], axis=1
        )
        return noise._replace(
            encoder_mask=self._mask("mask_encoder"),
            support_masks=tuple(np.moveaxis(support, 1, 0)),
            query_mask=self._mask("mask_val"),
        )

    def _zeroed(self, key):
        noise = self._array(key)
        return 0 * noise if self.name == "small_train_zero" else noise

    def _mask(self, key):
        return self.inputs[key].astype(bool)


def error(mine, answers: dict, key: str) -> float:
    """Largest error of `mine` against a golden array, relative to its rms."""
    mine = np.asarray(mine)
    if f"{key}.digest" in answers:
        return golden_io.check_digest(mine, answers[f"{key}.digest"])
    golden = np.asarray(answers[key], np.float64)
    assert mine.shape == golden.shape, (key, mine.shape, golden.shape)
    rms = max(np.sqrt(np.mean(golden**2)), 1e-30)
    return float(np.max(np.abs(mine.astype(np.float64) - golden)) / rms)
