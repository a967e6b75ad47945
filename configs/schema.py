"""The configuration of a run: checked settings that can be compared and saved.

Import everything about settings from here; `settings.py` lists them.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.settings import EMBEDDED_DATASET as EMBEDDED_DATASET
from leo_tf.configs.settings import (
    DataConfig,
    EpisodeConfig,
    FeatureConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from leo_tf.errors import FlagError, InputError, quoted

GROUPS: Mapping[str, type[rules.Settings]] = MappingProxyType(
    {
        "data": DataConfig,
        "features": FeatureConfig,
        "episodes": EpisodeConfig,
        "methods": MethodConfig,
        "model": ModelConfig,
        "optimizer": OptimizerConfig,
        "run": RunConfig,
    }
)
# The group of every setting. Names are unique over the groups, so each setting can be
# a flag, named without its group.
GROUP_OF: Mapping[str, str] = MappingProxyType(
    {f.name: group for group, kind in GROUPS.items() for f in dataclasses.fields(kind)}
)
_TEXT = rules.Rule(str, "text", str.isprintable)


def unknown(name: str) -> FlagError:
    """Returns the error for an unknown setting, with similar names."""
    close = difflib.get_close_matches(name, list(GROUP_OF), n=2)
    hint = f"Did you mean {' or '.join(close)}?" if close else ""
    expected, received = "the name of a setting", "an unknown one"
    return FlagError(f"--{quoted(name)[1:-1]}", expected, received, hint)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run, by group.

    `preset` is the name of the preset that it started from, or "".
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    episodes: EpisodeConfig = dataclasses.field(default_factory=EpisodeConfig)
    methods: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    preset: str = ""

    def __post_init__(self) -> None:
        for name, kind in GROUPS.items():
            group = getattr(self, name)
            if not isinstance(group, kind):
                raise FlagError(name, f"a {kind.__name__}", quoted(group))
        _TEXT.checked(self.preset, "--preset")

    def flat(self) -> dict[str, Any]:
        """Returns every setting by its name, and `preset`."""
        values = {name: getattr(getattr(self, g), name) for name, g in GROUP_OF.items()}
        return {**values, "preset": self.preset}

    def replace(self, **settings: Any) -> "Config":
        """Returns a copy with some settings changed, each given by name.

        Raises:
          FlagError: if a name is unknown or its value is refused.
        """
        groups: dict[str, Any] = {}
        preset = settings.pop("preset", self.preset)
        for name in settings:
            if name not in GROUP_OF:
                raise unknown(name)
        for group in GROUPS:
            mine = {n: v for n, v in settings.items() if GROUP_OF[n] == group}
            groups[group] = dataclasses.replace(getattr(self, group), **mine)
        return Config(**groups, preset=preset)

    def differences(self, other: "Config") -> list[tuple[str, Any, Any]]:
        """Returns (name, mine, theirs) of all differences, `preset` included."""
        mine, theirs = self.flat(), other.flat()
        return [(n, mine[n], theirs[n]) for n in mine if mine[n] != theirs[n]]

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts of JSON types.

        `from_dict` restores an equal `Config`.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str = "configuration") -> "Config":
        """Reads the output of `to_dict`. Missing fields get their defaults.

        Raises:
          InputError: if a field is unknown or refused; it names `source` and field.
        """
        rules.check_object(values, [*GROUPS, "preset"], source)
        groups: dict[str, Any] = {
            name: kind.from_dict(values.get(name, {}), source, name)
            for name, kind in GROUPS.items()
        }
        where = f"{source}: `preset`"
        preset = _TEXT.checked(values.get("preset", ""), where, InputError)
        return cls(**groups, preset=preset)
