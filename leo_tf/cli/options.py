"""The options of the command line as data: names, meanings, checks.

An option sets a target: a setting of the schema, or a run option such as `mode`.
Names of the original release are options of their own with a target of ours, so that
an error can name what was typed.
"""

import dataclasses
import os
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.presets import PRESETS
from leo_tf.configs.rules import LARGEST_INTEGER, Rule
from leo_tf.configs.schema import GROUPS
from leo_tf.errors import FlagError, shown
from leo_tf.methods.registry import METHODS, is_known

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
      modes: the only modes that know it; empty where that is no matter of modes.
      convert: from the flag's value to the target's.
    """

    name: str
    target: str
    rule: Rule
    help: str
    group: str = ""
    facts: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
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


# The release validates on this many batches, and tests on as many whole batches as
# this many episodes hold: `runner.py`.
_VALIDATION_BATCHES = 10
_TEST_EPISODES = 10_000

# The port is that of TensorFlow Serving's REST interface. A support of 1,000 examples
# of 640 features, each written with all its digits, is 14 MB of JSON.
SERVING_DEFAULTS = MappingProxyType(
    {"host": "127.0.0.1", "port": 8501, "max_request_bytes": 2**25}
)
COMPARISON_DEFAULTS = MappingProxyType(
    {
        "methods": "leo,generator,meta_sgd,maml,ridge,logistic,centroid",
        "method_settings": "",
        "seeds": 5,
        "trials": 16,
    }
)
# The caps bound what one request may cost: time and memory of LEO's relation network
# grow with the square of the support.
EXPORT_DEFAULTS = MappingProxyType(
    {
        "export_format": "saved_model",
        "export_version": None,
        "max_classes": 100,
        "max_support": 1000,
    }
)


# As `--help` lists them; names that are not here come last.
_FIRST_METHODS = (
    *("leo", "generator", "generator_finetuning", "leo_no_finetuning"),
    *("leo_deterministic", "leo_random_prior", "maml", "meta_sgd"),
    *("ridge", "logistic", "centroid", "centroid_euclidean"),
)


def _method_names() -> str:
    return ", ".join(dict.fromkeys([*_FIRST_METHODS, *METHODS]))


def _method_rule() -> Rule:
    """A method that is known, or has to be imported to know it."""
    return Rule(str, f"one of {_method_names()}, or package.module:Class", is_known)


def _methods_rule() -> Rule:
    """One or more of these, each once, as text."""
    names = f"{_method_names()}, or package.module:Class"
    expected = f"names among {names}, each once, separated by commas"

    def is_list(value: str) -> bool:
        names = value.split(",")
        return len(set(names)) == len(names) and all(map(is_known, names))

    return Rule(str, expected, is_list)


# Of the options that are no settings of a run.
RUN_DEFAULTS = MappingProxyType(
    {**EXPORT_DEFAULTS, **SERVING_DEFAULTS, **COMPARISON_DEFAULTS}
)


def _run_options() -> list[Option]:
    def option(name, rule, help_text, **more):
        return Option(name, name, rule, help_text, "What to do", **more)

    return [
        option(
            "mode",
            rules.choice(
                *("train", "evaluate", "search", "compare", "reproduce"),
                *("export", "serve"),
            ),
            "Train and test; only test the best checkpoint of --workdir; look for "
            "better settings on the validation episodes; train and test several "
            "methods; follow the published protocol over several seeds; write the best "
            "checkpoint as a model to deploy; or answer requests with the models of "
            "--export_dir.",
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
        option(
            "allow_changes",
            rules.boolean(),
            "Go on with a run although settings or data differ from its own.",
            modes=("train", "search", "compare", "reproduce"),
        ),
        option(
            "methods",
            _methods_rule(),
            "What to search settings for, or to train and test on the same episodes; "
            "differences are to LEO, or without it to the last.",
            facts=(f"default: {COMPARISON_DEFAULTS['methods']}",),
            modes=("search", "compare"),
        ),
        option(
            "method_settings",
            rules.path(),
            "File of settings for one method each, such as --mode=search writes; they "
            "count more than flags, which are for all methods.",
            modes=("compare",),
            convert=os.path.expanduser,
        ),
        option(
            "trials",
            rules.integer(1),
            "Runs to train for each method, with settings drawn by --seed; the first "
            "has those given.",
            facts=(f"default: {COMPARISON_DEFAULTS['trials']}",),
            modes=("search",),
        ),
        option(
            "seeds",
            rules.integer(1),
            "How many runs to train for the best number of steps, with the seeds from "
            "--seed on.",
            facts=(f"default: {COMPARISON_DEFAULTS['seeds']}",),
            modes=("reproduce",),
        ),
        option(
            "profile_steps",
            rules.span(),
            "Write a TensorFlow profile of these training steps.",
            modes=("train",),
            convert=lambda text: tuple(int(number) for number in text.split("-")),
        ),
        option("debug", rules.boolean(), "Show the traceback of an error."),
        option("quiet", rules.boolean(), "Print the results only."),
    ]


def _serving_options() -> list[Option]:
    def option(name, rule, help_text, default="", modes=("serve",), **more):
        facts = tuple(f"default: {value}" for value in [default] if value)
        return Option(
            name, name, rule, help_text, "Serving", facts, modes=modes, **more
        )

    return [
        option(
            "export_dir",
            rules.path(),
            "Directory of exported models, a version each.",
            modes=("export", "serve"),
            convert=os.path.expanduser,
        ),
        option(
            "host",
            Rule(str, "an address or a host name", str.isprintable),
            "Address to listen on; 0.0.0.0 lets other machines in.",
            default=SERVING_DEFAULTS["host"],
        ),
        option(
            "port",
            rules.integer(0, 65535),
            "Port to listen on; 0 for any free one.",
            default=SERVING_DEFAULTS["port"],
        ),
        option(
            "max_request_bytes",
            rules.integer(1),
            "Larger requests are refused.",
            default=SERVING_DEFAULTS["max_request_bytes"],
        ),
    ]


def _export_options() -> list[Option]:
    def option(name, rule, help_text):
        default = EXPORT_DEFAULTS[name]
        facts = (f"default: {default or 'the highest there is, plus 1'}",)
        return Option(name, name, rule, help_text, "Export", facts, modes=("export",))

    return [
        option(
            "export_format",
            rules.choice("saved_model", "tflite"),
            "What to write: for TensorFlow and its servers, or for small devices.",
        ),
        option(
            "export_version",
            rules.integer(1),
            "Number of the version; one that is there is never written over.",
        ),
        option("max_classes", rules.integer(2), "Most classes of a request."),
        option("max_support", rules.integer(2), "Most support examples of a request."),
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
            if field.name == "method":
                option = dataclasses.replace(option, rule=_method_rule())
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
    groups = _run_options(), _export_options(), _serving_options(), _schema_options()
    ours = {option.name: option for group in groups for option in group}
    theirs = {option.name: option for option in _release_options(ours)}
    return MappingProxyType({**ours, **theirs})


OPTIONS = _all_options()
