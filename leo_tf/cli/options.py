"""The options of the command line as data: names, help, checks.

An option sets a setting of the schema, or an argument of the function that does a
mode's job. Names of the original release are separate options with a target of ours,
so that an error names the flag as typed.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from leo_tf.configs import rules
from leo_tf.configs.presets import PRESETS
from leo_tf.configs.rules import LARGEST_INTEGER, Rule, boolean, integer
from leo_tf.configs.schema import GROUPS, Config
from leo_tf.configs.settings import TRANSFORMS
from leo_tf.embedding.views import VIEWS
from leo_tf.errors import FlagError, quoted
from leo_tf.methods.defaults import SEARCHED, compared
from leo_tf.methods.drawing import SAMPLERS
from leo_tf.methods.registry import METHODS, is_known
from leo_tf.methods.variants import method_part, variant_named

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_READERS: Mapping[type, Callable[[str], Any]] = MappingProxyType(
    {int: int, float: float, str: str, bool: lambda text: _BOOLEANS[text.lower()]}
)
# The release validates on this many batches, and tests on as many whole batches as fit
# into this many episodes: `runner.py`.
_VALIDATION_BATCHES = 10
_TEST_EPISODES = 10_000
# Default of a required argument.
REQUIRED = object()
_PATH = rules.path()  # a leading ~ is expanded


def _notes(default: Any, symbol: str = "") -> tuple[str, ...]:
    """Returns the default and the symbol in the paper as words, where they exist."""
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    text = text.lower() if isinstance(default, bool) else text
    notes = [] if default in (REQUIRED, None, "") else [f"default: {text}"]
    return (*notes, *([f"{symbol} in the paper"] if symbol else []))


@dataclasses.dataclass(frozen=True)
class Option:
    """One flag.

    Attributes:
      name: the flag as typed, without dashes.
      modes: the only modes that accept it; empty if all do.
      default: default of the argument that it sets.
      argument: name of the argument of the function that does a mode's job.
      notes: notes that `--help` adds; by default, the default value.
      convert: turns the flag's value into the target's; paths have one already.
      target: name of the setting it sets, where a name of the release is an alias.
      group: its heading in `--help`; aliases of the release have none.
    """

    name: str
    rule: Rule
    modes: tuple[str, ...] = ()
    default: Any = REQUIRED
    argument: str = ""
    notes: tuple[str, ...] | None = None
    convert: Callable[[Any], Any] = lambda value: value
    target: str = ""
    help: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.target or self.name)
        object.__setattr__(self, "argument", self.argument or self.name)
        if self.notes is None:
            object.__setattr__(self, "notes", _notes(self.default))
        if self.rule is _PATH:
            object.__setattr__(self, "convert", os.path.expanduser)

    def meaning(self, text: str) -> "Option":
        """Returns a copy with `text` as its help."""
        return dataclasses.replace(self, help=text)

    @property
    def accepted(self) -> str:
        """The values that `--help` says it accepts.

        The methods are listed once, at --methods.
        """
        if self.rule is _METHOD:
            return "one of the methods listed at --methods"
        return "a path" if self.rule is _PATH else self.rule.expected

    def value(self, argument: Any) -> Any:
        """Returns the checked value of the flag's text.

        Raises:
          FlagError: naming this flag.
        """
        where, expected = f"--{self.name}", self.rule.expected
        if argument == "":  # probably an unset shell variable
            raise FlagError(where, expected, "nothing")
        if isinstance(argument, str):
            try:
                if argument.startswith("--"):  # the next flag
                    raise ValueError
                is_range = self.rule.ranges and "-" in argument[1:]
                argument = argument if is_range else _READERS[self.rule.kind](argument)
            except (ValueError, KeyError):
                raise FlagError(where, expected, quoted(argument)) from None
        return self.rule.checked(argument, where)


# Order of `--help`; other registered methods come last.
_FIRST_METHODS = (
    *("leo", "generator", "generator_finetuning", "leo_no_finetuning"),
    *("leo_deterministic", "leo_random_prior", "maml", "meta_sgd", "protonet", "r2d2"),
    *("ridge", "logistic", "lda", "simpleshot", "centroid", "centroid_euclidean"),
    *("soft_kmeans", "bd_cspn", "laplacian_shot", "pt_map"),
)
_METHOD_NAMES = ", ".join(dict.fromkeys([*_FIRST_METHODS, *METHODS]))
_METHOD_NAMES += ", package.module:Class or sklearn:package.module.Class"


def _are_known(text: str) -> bool:
    names = text.split(",")
    known = all(is_known(method_part(name)) for name in names)
    return known and len(set(names)) == len(names)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        variant_named(name)  # raises a FlagError if its transform is wrong
    return names


_METHOD = Rule(str, f"one of {_METHOD_NAMES}", is_known)
_LIST = f"names among {_METHOD_NAMES}, each once, separated by commas; also "
_LIST += f"METHOD@TRANSFORM, of {', '.join(TRANSFORMS)}"
_JOBS = ("train", "search", "compare", "reproduce")
_MANY_RUNS = ("search", "compare", "reproduce")
_EXPORT, _SERVE = ("export",), ("serve",)
_EMBED, _PRETRAIN, _CHAIN = ("embed",), ("pretrain",), ("from_images",)
_WITH_FEATURES = (*_JOBS, *_EMBED, *_CHAIN)
_WITH_BACKBONE = (*_PRETRAIN, *_CHAIN)
_WITH_PICTURES = (*_WITH_FEATURES, *_PRETRAIN)
_BACKBONE = Rule(
    str,
    "hog, a model of keras.applications (ResNet50), a directory of --mode=pretrain, a "
    ".keras file, a SavedModel or module:callable; to pre-train, wrn_DEPTH_WIDTH",
    str.isprintable,
)
_FORMAT = rules.choice("saved_model", "tflite")
_HIGHEST = ("default: one more than the highest version",)
_HOST = Rule(str, "an address or a host name", str.isprintable)
# An origin as browsers send it, because it is compared as text: no path, no capitals,
# no default port.
_ORIGIN = re.compile(
    r"(?!http://.*:80\Z|https://.*:443\Z)"
    r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
)


def _are_origins(text: str) -> bool:
    return all(each == "*" or _ORIGIN.fullmatch(each) for each in text.split(","))


_ORIGINS = Rule(
    str,
    "origins as browsers send them, https://example.org or http://localhost:3000, "
    "separated by commas, or *",
    _are_origins,
)

_WHAT_TO_DO = [
    Option(
        "mode",
        rules.choice(
            *(*_JOBS[:1], "evaluate", *_JOBS[1:]),
            *("pretrain", "embed", "from_images", "export", "serve"),
        ),
        notes=("default: train",),
    ).meaning(
        "train: train and test. evaluate: only test the best checkpoint of --workdir. "
        "search: look for better settings on the validation episodes. compare: train "
        "and test several methods. reproduce: follow the published protocol over "
        "several seeds. pretrain: train a backbone on pictures. embed: turn pictures "
        "into features. from_images: pretrain, embed, compare and export; "
        "--images alone selects it. export: write the best checkpoint as a model to "
        "deploy. serve: answer requests with the models of --export_dir."
    ),
    Option(
        "preset",
        rules.choice(*PRESETS),
        notes=("default: glyphs, or none where flags name other data",),
    ).meaning("Settings to start from. Every other flag overrides the preset."),
    Option("workdir", _PATH).meaning(
        "Run directory, with checkpoints, results and figures. Training resumes in it."
    ),
    Option("allow_changes", boolean(), _JOBS, default=False).meaning(
        "Resume even if settings or data differ from the original run's."
    ),
    Option(
        "methods",
        Rule(str, _LIST, _are_known),
        ("search", "compare"),
        None,
        notes=(
            f"default of search: {', '.join(SEARCHED)}",
            f"default of compare: {', '.join(compared(Config()))}; above one shot also "
            "centroid_euclidean on each transform",
        ),
        convert=_names,
    ).meaning(
        "Methods to search settings for, or to train and test on the same episodes. "
        "Each uses --feature_transform, or its own transform, as in ridge@soft. "
        "Differences are relative to LEO, or without LEO to the last method of the "
        "table that scores each query by itself."
    ),
    Option("method_settings", _PATH, ("compare",), default="").meaning(
        "File of settings for single methods, such as --mode=search writes. They "
        "override flags, which apply to all methods."
    ),
    Option("open_set", boolean(), ("evaluate", "compare"), default=False).meaning(
        "Also test how well queries of unknown classes are detected, and how often "
        "prediction sets contain the right class."
    ),
    Option("trials", integer(1), ("search",), default=16).meaning(
        "Runs to train for each method, with settings drawn from --seed. The first "
        "uses the settings given."
    ),
    Option("sampler", rules.choice(*SAMPLERS), ("search",), SAMPLERS[0]).meaning(
        "Sampler of the further settings: random, guided by earlier results (tpe), or "
        "evenly spread (qmc)."
    ),
    Option("rungs", integer(1), ("search",), default=3).meaning(
        "Stages of training: all trials train in the first; the best third of each "
        "method train three times as long in the next; 1 trains all to --num_steps."
    ),
    Option("seeds", integer(1), ("reproduce",), default=5).meaning(
        "Number of seeds, counted from --seed. Each trains for the number of steps "
        "that validation selected."
    ),
    Option(
        "profile_steps",
        rules.span(),
        ("train",),
        default=None,
        convert=lambda text: tuple(int(number) for number in text.split("-")),
    ).meaning("Write a TensorFlow profile of these training steps."),
    Option(
        *("jobs", integer(0), _MANY_RUNS, None),
        notes=("default: as many as fit the cores or GPUs",),
    ).meaning(
        "Runs to train at a time, in worker processes; 0 trains them in this process."
    ),
    Option(
        *("cluster", Rule(str, "an address, or auto", str.isprintable), _MANY_RUNS, ""),
    ).meaning("Ray cluster to train the runs on; auto for the one on this machine."),
    Option("run_cpus", integer(1), _MANY_RUNS, default=1).meaning(
        "Cores per run; all with --jobs=0. The last digits of results depend on it."
    ),
    Option(
        *("run_gpus", rules.above_zero(), _MANY_RUNS, None),
        notes=("default: 1 if there are any; none with --cluster",),
    ).meaning("GPUs per run; at 0.25, four runs share one."),
    Option("debug", boolean(), default=False).meaning(
        "Show the traceback of an error."
    ),
    Option("quiet", boolean(), default=False).meaning("Print the results only."),
]
_PICTURES = [
    Option("images", _PATH, _WITH_PICTURES, None).meaning(
        "Folder with one folder of pictures per class, or with folders train, val and "
        "test of such folders; a CSV file of path, label and, optionally, split; or "
        "glyphs."
    ),
    Option("skip_bad_images", boolean(), _WITH_PICTURES, default=False).meaning(
        "Leave out pictures that cannot be read, and list them."
    ),
    Option("features_dir", _PATH, _JOBS + _EMBED, None).meaning(
        "Directory to write the features to, for a later --data_path. Defaults to a "
        "directory in the user's cache."
    ),
    Option(
        *("backbone", _BACKBONE, _WITH_PICTURES + _EXPORT, None),
        notes=("default: hog; when pre-training, that of the recipe",),
    ).meaning(
        "Network or function that turns pictures into features. When exporting, the "
        "new place of the backbone that made the run's features."
    ),
    Option("backbone_weights", _PATH, _WITH_FEATURES + _EXPORT, None).meaning(
        "Weights of a model of keras.applications: imagenet (downloaded), none "
        "(random) or a file."
    ),
    Option(
        *("image_size", integer(8, 2048), _WITH_PICTURES, None),
        notes=("default: the backbone's; when pre-training, that of the recipe",),
    ).meaning(
        "Side in pixels of the pictures given to the backbone, if it accepts any size."
    ),
    Option(
        *("views", rules.choice(*VIEWS), _WITH_FEATURES, None),
        notes=("default: whole with hog, else center",),
    ).meaning(
        "Part of a picture to embed: all of it, its center, or ten crops, averaged."
    ),
    Option("recipe", rules.choice("paper", "small"), _WITH_BACKBONE, "small").meaning(
        "Settings of pre-training: paper is wrn_28_10 on 80 x 80 pixels for 90 epochs, "
        "small is wrn_10_2 on 32 x 32 for 30."
    ),
    Option(
        *("pretrain_epochs", integer(1), _WITH_BACKBONE, None, "epochs"),
        notes=("default: those of the recipe",),
    ).meaning("Epochs of pre-training."),
    Option(
        *("pretrain_lr", rules.above_zero(), _WITH_BACKBONE, None, "learning_rate"),
        notes=("default: 0.1",),
    ).meaning("Initial learning rate of pre-training."),
    Option(
        *("flip", boolean(), _WITH_BACKBONE, None),
        notes=("default: true, except for glyphs",),
    ).meaning(
        "Mirror half of the pictures during pre-training. Use --noflip for writing."
    ),
]
_EXPORTING = [
    Option("export_format", _FORMAT, _EXPORT, "saved_model", "format").meaning(
        "Format of the export: saved_model for TensorFlow and its servers, tflite for "
        "small devices."
    ),
    Option("export_version", integer(1), _EXPORT, None, "version", _HIGHEST).meaning(
        "Number of the version. An existing version is never overwritten."
    ),
    # The caps bound what one request may cost: time and memory of LEO's relation
    # network grow with the square of the support.
    Option("max_classes", integer(2), _EXPORT, 100).meaning(
        "Largest number of classes in a request."
    ),
    Option("max_support", integer(2), _EXPORT, 1000).meaning(
        "Largest number of support examples in a request."
    ),
]
_SERVING = [
    Option("export_dir", _PATH, _EXPORT + _SERVE).meaning(
        "Directory of exported models, one subdirectory per version."
    ),
    Option("host", _HOST, _SERVE, "127.0.0.1").meaning(
        "Address to listen on. 0.0.0.0 accepts connections from other machines."
    ),
    # The port of TensorFlow Serving's REST interface.
    Option("port", integer(0, 65535), _SERVE, 8501).meaning(
        "Port to listen on; 0 picks a free one."
    ),
    # A support of 1,000 examples with 640 features, written with all digits, is
    # 14 MB of JSON.
    Option("max_request_bytes", integer(1), _SERVE, 2**25).meaning(
        "Largest size of a request in bytes. Larger ones are refused."
    ),
    Option(
        *("cors_origin", _ORIGINS, _SERVE, (), "cors_origins"),
        notes=("default: none",),
        convert=lambda text: tuple(text.split(",")),
    ).meaning(
        "Origins of the pages allowed to send requests from a browser; * for all."
    ),
]


def _of_setting(field: dataclasses.Field) -> Option:
    rule, text, symbol = (field.metadata[key] for key in ("rule", "help", "symbol"))
    rule = {"method": _METHOD, "data_path": _PATH}.get(field.name, rule)
    option = Option(field.name, rule, notes=_notes(field.default, symbol), help=text)
    if field.name == "sklearn_parameters":  # may be a path
        return dataclasses.replace(option, convert=os.path.expanduser)
    return option


def _all_options() -> Mapping[str, Option]:
    groups = {
        "What to do": _WHAT_TO_DO,
        "Pictures": _PICTURES,
        "Export": _EXPORTING,
        "Serving": _SERVING,
    }
    for group, kind in GROUPS.items():
        groups[group.capitalize()] = [_of_setting(f) for f in dataclasses.fields(kind)]
    ours = {
        option.name: dataclasses.replace(option, group=group)
        for group, options in groups.items()
        for option in options
    }

    def of_release(name, target, rule=None, convert=None, note=""):
        text = f"--{name}{note} in the original release"
        like = ours[target]
        rule, convert = rule or like.rule, convert or like.convert
        return Option(name, rule, help=text, target=target, convert=convert)

    items = "--items is a CSV file of text, label and optionally split, for a callable"
    others = [
        dataclasses.replace(ours["images"], name="items", help=items, group=""),
        of_release("num_classes", "way"),
        of_release("num_tr_examples_per_class", "shot"),
        of_release("num_val_examples_per_class", "num_query"),
        of_release("metatrain_batch_size", "meta_batch_size"),
        of_release(
            "metavalid_batch_size",
            "num_val_episodes",
            integer(1, LARGEST_INTEGER // _VALIDATION_BATCHES),
            lambda size: _VALIDATION_BATCHES * size,
            f" * {_VALIDATION_BATCHES}",
        ),
        of_release(
            "metatest_batch_size",
            "num_test_episodes",
            integer(1, _TEST_EPISODES),
            lambda size: _TEST_EPISODES // size * size,
            f" in whole batches of at most {_TEST_EPISODES} episodes",
        ),
        of_release("num_steps_limit", "num_steps"),
        of_release("checkpoint_steps", "validate_every", integer(0)),
        of_release("checkpoint_path", "workdir"),
        of_release(
            "evaluation_mode",
            "mode",
            boolean(),
            lambda on: "evaluate" if on else "train",
        ),
    ]
    return MappingProxyType({**ours, **{option.name: option for option in others}})


OPTIONS = _all_options()
