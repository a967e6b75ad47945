"""The options of the command line as data: names, meanings, checks.

An option sets a setting of the schema, or an argument of the function that does a
mode's job. Names of the original release are options of their own with a target of
ours, so that an error can name what was typed.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.presets import PRESETS
from leo_tf.configs.rules import LARGEST_INTEGER, Rule
from leo_tf.configs.schema import GROUPS
from leo_tf.errors import FlagError, shown
from leo_tf.methods.registry import METHODS, is_known
from leo_tf.methods.settings import DEFAULT_METHODS

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_READERS: Mapping[type, Callable[[str], Any]] = MappingProxyType(
    {int: int, float: float, str: str, bool: lambda text: _BOOLEANS[text.lower()]}
)
# The release validates on this many batches, and tests on as many whole batches as
# this many episodes hold: `runner.py`.
_VALIDATION_BATCHES = 10
_TEST_EPISODES = 10_000
# The default of an argument that must be given.
REQUIRED = object()
# As `--help` lists them; others that are registered come last.
_FIRST_METHODS = (
    *("leo", "generator", "generator_finetuning", "leo_no_finetuning"),
    *("leo_deterministic", "leo_random_prior", "maml", "meta_sgd"),
    *("ridge", "logistic", "centroid", "centroid_euclidean"),
)


@dataclasses.dataclass(frozen=True)
class Option:
    """One flag.

    Attributes:
      name: as typed, without dashes.
      rule: what values it takes.
      help: one sentence or two.
      group: the heading it stands under in `--help`; empty for a name of the
        release, which is shown with its target.
      facts: its default and its symbol in the paper, in words, where it has them.
      target: what it sets, if that has another name: one of the release's.
      modes: the only modes that know it; empty where that is no matter of modes.
      argument: what it is called by the function that does a mode's job.
      default: of that argument.
      convert: from the flag's value to the target's.
    """

    name: str
    rule: Rule
    help: str
    group: str = ""
    facts: tuple[str, ...] = ()
    target: str = ""
    modes: tuple[str, ...] = ()
    argument: str = ""
    default: Any = REQUIRED
    convert: Callable[[Any], Any] = lambda value: value

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.target or self.name)
        object.__setattr__(self, "argument", self.argument or self.name)

    def value(self, argument: Any) -> Any:
        """Returns the checked value of the flag's text.

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


def _method_names() -> str:
    return ", ".join(dict.fromkeys([*_FIRST_METHODS, *METHODS]))


def _method_rule() -> Rule:
    """A method that is known, or has to be imported to know it."""
    return Rule(str, f"one of {_method_names()}, or package.module:Class", is_known)


def _methods_rule() -> Rule:
    """One or more of these, each once, as text."""
    names = f"{_method_names()}, or package.module:Class"

    def is_list(value: str) -> bool:
        names = value.split(",")
        return len(set(names)) == len(names) and all(map(is_known, names))

    expected = f"names among {names}, each once, separated by commas"
    return Rule(str, expected, is_list)


_JOBS = ("train", "search", "compare", "reproduce")
_DO, _EXPORT, _SERVING = "What to do", "Export", "Serving"


def _run_options() -> list[Option]:
    return [
        Option(
            "mode",
            rules.choice(*_JOBS[:1], "evaluate", *_JOBS[1:], "export", "serve"),
            "Train and test; only test the best checkpoint of --workdir; look for "
            "better settings on the validation episodes; train and test several "
            "methods; follow the published protocol over several seeds; write the best "
            "checkpoint as a model to deploy; or answer requests with the models of "
            "--export_dir.",
            _DO,
            ("default: train",),
        ),
        Option(
            "preset",
            rules.choice(*PRESETS),
            "Settings to start from; every other flag overrides it.",
            _DO,
            ("default: glyphs, or none where flags name other data",),
        ),
        Option(
            "workdir",
            rules.path(),
            "Run directory: checkpoints, results, pictures. Training resumes in it.",
            _DO,
            convert=os.path.expanduser,
        ),
        Option(
            "allow_changes",
            rules.boolean(),
            "Resume even if settings or data differ from the original run's.",
            _DO,
            modes=_JOBS,
            default=False,
        ),
        Option(
            "methods",
            _methods_rule(),
            "What to search settings for, or to train and test on the same episodes; "
            "differences are to LEO, or without it to the last.",
            _DO,
            (f"default: {','.join(DEFAULT_METHODS)}",),
            modes=("search", "compare"),
            default=DEFAULT_METHODS,
            convert=lambda text: tuple(text.split(",")),
        ),
        Option(
            "method_settings",
            rules.path(),
            "File of settings for one method each, such as --mode=search writes; they "
            "count more than flags, which are for all methods.",
            _DO,
            modes=("compare",),
            default="",
            convert=os.path.expanduser,
        ),
        Option(
            "trials",
            rules.integer(1),
            "Runs to train for each method, with settings drawn by --seed; the first "
            "has those given.",
            _DO,
            ("default: 16",),
            modes=("search",),
            default=16,
        ),
        Option(
            "seeds",
            rules.integer(1),
            "How many runs to train for the best number of steps, with the seeds from "
            "--seed on.",
            _DO,
            ("default: 5",),
            modes=("reproduce",),
            default=5,
        ),
        Option(
            "profile_steps",
            rules.span(),
            "Write a TensorFlow profile of these training steps.",
            _DO,
            modes=("train",),
            default=None,
            convert=lambda text: tuple(int(number) for number in text.split("-")),
        ),
        Option("debug", rules.boolean(), "Show the traceback of an error.", _DO),
        Option("quiet", rules.boolean(), "Print the results only.", _DO),
    ]


def _deployment_options() -> list[Option]:
    def option(name, rule, help_text, default, argument="", shown_default="", **more):
        group = _SERVING if more["modes"] == ("serve",) else _EXPORT
        facts = (f"default: {shown_default or default}",)
        more = {"argument": argument, "default": default, **more}
        return Option(name, rule, help_text, group, facts, **more)

    export, serve = {"modes": ("export",)}, {"modes": ("serve",)}
    return [
        option(
            "export_format",
            rules.choice("saved_model", "tflite"),
            "What to write: for TensorFlow and its servers, or for small devices.",
            "saved_model",
            "format",
            **export,
        ),
        option(
            "export_version",
            rules.integer(1),
            "Number of the version; one that is there is never written over.",
            None,
            "version",
            "the highest there is, plus 1",
            **export,
        ),
        # The caps bound what one request may cost: time and memory of LEO's relation
        # network grow with the square of the support.
        option(
            "max_classes", rules.integer(2), "Most classes of a request.", 100, **export
        ),
        option(
            "max_support",
            rules.integer(2),
            "Most support examples of a request.",
            1000,
            **export,
        ),
        Option(
            "export_dir",
            rules.path(),
            "Directory of exported models, a version each.",
            _SERVING,
            modes=("export", "serve"),
            convert=os.path.expanduser,
        ),
        option(
            "host",
            Rule(str, "an address or a host name", str.isprintable),
            "Address to listen on; 0.0.0.0 lets other machines in.",
            "127.0.0.1",
            **serve,
        ),
        # That of TensorFlow Serving's REST interface.
        option(
            "port",
            rules.integer(0, 65535),
            "Port to listen on; 0 for any free one.",
            8501,
            **serve,
        ),
        # A support of 1,000 examples of 640 features, each written with all its
        # digits, is 14 MB of JSON.
        option(
            "max_request_bytes",
            rules.integer(1),
            "Larger requests are refused.",
            2**25,
            **serve,
        ),
    ]


def _schema_options() -> list[Option]:
    options = []
    for group, kind in GROUPS.items():
        for field in dataclasses.fields(kind):
            rule, help_text = field.metadata["rule"], field.metadata["help"]
            rule = _method_rule() if field.name == "method" else rule
            option = Option(
                field.name, rule, help_text, group.capitalize(), _facts(field)
            )
            if field.name == "data_path":
                option = dataclasses.replace(option, convert=os.path.expanduser)
            options.append(option)
    return options


def _facts(field: dataclasses.Field) -> tuple[str, ...]:
    facts = []
    if field.default not in (None, ""):
        default = str(field.default).lower() if field.type is bool else field.default
        facts.append(f"default: {default}")
    if field.metadata["symbol"]:
        facts.append(f"{field.metadata['symbol']} in the paper")
    return tuple(facts)


def _release_options(known: Mapping[str, Option]) -> list[Option]:
    def option(name, target, rule=None, convert=None, note=""):
        return Option(
            name,
            rule or known[target].rule,
            f"--{name}{note} in the original release",
            target=target,
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


def _all_options() -> Mapping[str, Option]:
    groups = _run_options(), _deployment_options(), _schema_options()
    ours = {option.name: option for group in groups for option in group}
    theirs = {option.name: option for option in _release_options(ours)}
    return MappingProxyType({**ours, **theirs})


OPTIONS = _all_options()
