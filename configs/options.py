"""The options of the command line as data: names, meanings, checks, help.

An option sets a target: a setting of the schema, or one of the run options `mode`,
`workdir`, `preset`, `debug` and `quiet`. Names of the original release are options
of their own with a target of ours, so that an error can name what was typed.
"""

import dataclasses
import os
import textwrap
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from configs import rules
from configs.errors import FlagError, shown
from configs.presets import PRESETS
from configs.rules import LARGEST_INTEGER, Rule
from configs.schema import GROUPS

# The release validates on this many batches, and tests on as many whole batches as
# this many episodes hold: `runner.py`.
_VALIDATION_BATCHES = 10
_TEST_EPISODES = 10_000

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_READERS = {
    int: int,
    float: float,
    str: str,
    bool: lambda text: _BOOLEANS[text.lower()],
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One flag.

    Attributes:
      name: as typed, without dashes.
      target: what it sets; differs from `name` for a name of the release.
      rule: what values it takes.
      help: one sentence or two.
      group: the heading it stands under in `--help`; empty for a name of the
        release, which is shown with its target.
      facts: its default and its symbol in the paper, in words, where it has them.
      convert: from the flag's value to the target's.
    """

    name: str
    target: str
    rule: Rule
    help: str
    group: str = ""
    facts: tuple[str, ...] = ()
    convert: Callable[[Any], Any] = lambda value: value

    def value(self, argument):
        """The checked value of the flag's text.

        Raises:
          FlagError: naming this flag.
        """
        where = f"--{self.name}"
        if argument == "":  # an unset variable of the shell, most likely
            raise FlagError(where, self.rule.expected, "nothing")
        if isinstance(argument, str):
            if argument.startswith("--"):  # the next flag, taken for a value
                raise FlagError(where, self.rule.expected, shown(argument))
            try:
                argument = _READERS[self.rule.kind](argument)
            except (ValueError, KeyError):
                received = shown(argument)
                raise FlagError(where, self.rule.expected, received) from None
        return self.rule.checked(argument, where)


def _run_options() -> list[Option]:
    def option(name, rule, help_text, **more):
        return Option(name, name, rule, help_text, "What to do", **more)

    return [
        option(
            "mode",
            rules.choice("train", "evaluate"),
            "Train and test, or only test the best checkpoint of --workdir.",
            facts=("default: train",),
        ),
        option(
            "preset",
            rules.choice(*PRESETS),
            "Settings to start from; every other flag overrides it.",
            facts=("default: glyphs, or none where flags name other data",),
        ),
        option(
            "workdir",
            rules.path(),
            "Run directory: checkpoints, results, pictures. Training resumes in it.",
            convert=os.path.expanduser,
        ),
        option("debug", rules.boolean(), "Show the traceback of an error."),
        option("quiet", rules.boolean(), "Print the results only."),
    ]


def _schema_options() -> list[Option]:
    options = []
    for group, kind in GROUPS.items():
        for field in dataclasses.fields(kind):
            option = Option(
                field.name,
                field.name,
                field.metadata["rule"],
                field.metadata["help"],
                group.capitalize(),
                _facts(field),
            )
            if field.name == "data_path":
                option = dataclasses.replace(option, convert=os.path.expanduser)
            options.append(option)
    return options


def _facts(field) -> tuple[str, ...]:
    facts = []
    if field.default not in (None, ""):
        default = str(field.default).lower() if field.type is bool else field.default
        facts.append(f"default: {default}")
    if field.metadata["symbol"]:
        facts.append(f"{field.metadata['symbol']} in the paper")
    return tuple(facts)


def _release_options(known: dict[str, Option]) -> list[Option]:
    def option(name, target, rule=None, convert=None, note=""):
        return Option(
            name,
            target,
            rule or known[target].rule,
            f"--{name}{note} in the original release",
            convert=convert or known[target].convert,
        )

    return [
        option("num_classes", "way"),
        option("num_tr_examples_per_class", "shot"),
        option("num_val_examples_per_class", "num_query"),
        option("metatrain_batch_size", "meta_batch_size"),
        option(
            "metavalid_batch_size",
            "num_val_episodes",
            rules.integer(1, LARGEST_INTEGER // _VALIDATION_BATCHES),
            lambda size: _VALIDATION_BATCHES * size,
            note=f" * {_VALIDATION_BATCHES}",
        ),
        option(
            "metatest_batch_size",
            "num_test_episodes",
            rules.integer(1, _TEST_EPISODES),
            lambda size: _TEST_EPISODES // size * size,
            note=f" in whole batches of at most {_TEST_EPISODES} episodes",
        ),
        option("num_steps_limit", "num_steps"),
        option("checkpoint_steps", "validate_every", rules.integer(0)),
        option("checkpoint_path", "workdir"),
        option(
            "evaluation_mode",
            "mode",
            rules.boolean(),
            lambda value: "evaluate" if value else "train",
        ),
    ]


def _all_options() -> MappingProxyType:
    ours = {option.name: option for option in [*_run_options(), *_schema_options()]}
    theirs = {option.name: option for option in _release_options(ours)}
    return MappingProxyType({**ours, **theirs})


OPTIONS = _all_options()
_INDENT = {"initial_indent": " " * 6, "subsequent_indent": " " * 6}


def help_text(program: str) -> str:
    """What `--help` prints: presets, then all options under headings."""
    lines = [f"usage: {program} [--name=value ...]", "", "Presets:"]
    width = max(map(len, PRESETS))
    for preset in PRESETS.values():
        lines.append(f"  {preset.name:{width}}  {preset.description}")
    lines += ["", "Defaults below are the original release's. A preset has its own;"]
    lines += ["without flags, the preset is glyphs."]
    groups = dict.fromkeys(option.group for option in OPTIONS.values() if option.group)
    for group in groups:
        lines += ["", f"{group}:"]
        members = [option for option in OPTIONS.values() if option.group == group]
        lines += [line for option in members for line in _option_help(option)]
    lines += ["", "--flagfile=FILE reads flags from a file, one a line."]
    return "\n".join(lines)


def _option_help(option) -> list[str]:
    is_boolean = option.rule.kind is bool
    name = f"  --[no]{option.name}" if is_boolean else f"  --{option.name}"
    facts = [] if is_boolean else [option.rule.expected]
    facts += option.facts
    facts += [o.help for o in OPTIONS.values() if o.target == option.name != o.name]
    text = f"{option.help} ({'; '.join(facts)})" if facts else option.help
    return [name, *textwrap.wrap(text, 80, **_INDENT)]
