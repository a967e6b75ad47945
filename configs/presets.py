"""Named presets: the four published ones, and one for the embedded data set.

The command of each is `run_leo.py --preset=NAME`, with `--data_path=DIR` where it needs
the embeddings of the original release; any flag beside it overrides the preset.

The published numbers come from training on the training and the validation classes
together: add `--train_on_val`. No preset sets it, because then no classes remain to
select the best checkpoint on. A user of the release who trained on the training classes
alone got 60.9 % for miniImageNet 1-shot (60.3 % with its defaults), where its README
prints 61.89 %: issue 14 of its repository.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from leo_tf.configs.schema import EMBEDDED_DATASET, Config

_README = "README of the original release, github.com/google-deepmind/leo"
_PAPER = "arXiv:1807.05960, as quoted in that README"


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A published test accuracy."""

    percent: float  # mean over test episodes
    # Number after the plus-minus sign, in percent. The release's README does not say
    # whether it is over episodes or over runs.
    half_width: float
    protocol: str  # the classes it was trained on
    source: str  # where it is printed


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named setup."""

    name: str  # value of `--preset`
    description: str  # one line for `--help` and reports
    overrides: Mapping[
        str, object
    ]  # settings that differ from the defaults or pin them
    expected: tuple[Accuracy, ...] = ()  # published

    def config(self) -> Config:
        """Returns the configuration of this preset."""
        return Config().replace(preset=self.name, **self.overrides)


# Defaults of the release that its table leaves out, pinned here.
_RELEASE_DEFAULTS = {
    "way": 5,
    "num_query": 15,
    "meta_batch_size": 12,
    "num_latents": 64,
    "inner_unroll_length": 5,
    "finetuning_unroll_length": 5,
    "inner_lr_init": 1.0,
    "finetuning_lr_init": 0.001,
    "gradient_threshold": 0.1,
    "gradient_norm_threshold": 0.1,
    "num_steps": 100_000,
}
# The tables of that README, one column per preset: name, data set, shot, then test
# accuracies of the paper and of the release as (mean, +-). The tuned settings follow.
_COLUMNS = (
    ("mini_1shot", "miniImageNet", 1, (61.76, 0.08), (61.89, 0.16)),
    ("mini_5shot", "miniImageNet", 5, (77.59, 0.12), (77.65, 0.09)),
    ("tiered_1shot", "tieredImageNet", 1, (66.33, 0.05), (66.25, 0.14)),
    ("tiered_5shot", "tieredImageNet", 5, (81.44, 0.09), (81.77, 0.09)),
)
_TUNED = {
    "outer_lr": (2.739071e-4, 4.102361e-4, 8.659053e-4, 6.110314e-4),
    "l2_penalty_weight": (3.623413e-10, 8.540338e-9, 4.148858e-10, 1.690399e-10),
    "orthogonality_penalty_weight": (0.188103, 1.523998e-3, 5.451078e-3, 2.481216e-2),
    "dropout_rate": (0.307651, 0.300299, 0.475126, 0.415158),
    "kl_weight": (0.756143, 0.466387, 2.034189e-3, 1.622811),
    "encoder_penalty_weight": (5.756821e-6, 2.661608e-7, 8.302962e-5, 2.672450e-5),
}


def _published(column: int) -> Preset:
    name, dataset_name, shot, paper, release = _COLUMNS[column]
    settings = {"dataset_name": dataset_name, "shot": shot, **_RELEASE_DEFAULTS}
    tuned = {setting: values[column] for setting, values in _TUNED.items()}
    return Preset(
        name=name,
        description=f"{dataset_name}, 5-way {shot}-shot, as published",
        overrides=MappingProxyType({**settings, **tuned}),
        expected=(
            Accuracy(*paper, protocol="train+val", source=_PAPER),
            Accuracy(*release, protocol="train+val", source=_README),
        ),
    )


_ALL = (
    Preset(
        name="glyphs",
        description="embedded characters of many scripts, 5-way 1-shot: minutes",
        overrides=MappingProxyType(
            {
                "dataset_name": EMBEDDED_DATASET,
                "way": 5,
                "shot": 1,
                "dropout_rate": 0.3,
                "kl_weight": 1e-3,
                "encoder_penalty_weight": 1e-9,
                "l2_penalty_weight": 1e-8,
                "orthogonality_penalty_weight": 1e-3,
                "outer_lr": 1e-3,
                "num_steps": 4000,
                "validate_every": 500,
                "num_val_episodes": 600,
                "num_test_episodes": 2000,
            }
        ),
    ),
    *map(_published, range(len(_COLUMNS))),
)


class _Presets(dict[str, Preset]):
    """Presets by name. The error of an unknown name lists them."""

    def __missing__(self, name: str) -> Preset:
        raise KeyError(f"{name}: expected one of {', '.join(self)}")


PRESETS: Mapping[str, Preset] = MappingProxyType(_Presets({p.name: p for p in _ALL}))


def given(config: Config) -> dict[str, object]:
    """Returns the settings that make `config`: its preset, and what differs from it.

    Without a preset, returns the differences from the defaults. Given as flags, they
    result in `config` again, unless a setting of the preset was reset to None.
    """
    preset = PRESETS.get(config.preset)
    usual = (preset.config() if preset else Config()).flat()
    changed = {
        name: value
        for name, value in config.flat().items()
        if value != usual[name] and value is not None and name != "preset"
    }
    return {**({"preset": preset.name} if preset else {}), **changed}
