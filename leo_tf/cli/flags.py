"""The command line: absl flags derived from `OPTIONS`, and `--help`.

A value is checked when it is parsed, so an error names the flag as it was typed.
Importing this must stay quick: `--help` and errors do not wait for TensorFlow.
"""

import dataclasses
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from absl import flags as absl_flags

import leo_tf
from leo_tf.cli.modes import check_mode
from leo_tf.cli.options import OPTIONS, REQUIRED, Option
from leo_tf.configs.presets import PRESETS
from leo_tf.configs.schema import EMBEDDED_DATASET, GROUP_OF, Config
from leo_tf.data_pipeline.release_layout import dataset_of
from leo_tf.errors import FlagError, quoted

_OFFICIAL_EMBEDDINGS = "http://storage.googleapis.com/leo-embeddings/embeddings.zip"
_HELP = frozenset(["-h", "-help", "--help", "-?", "--helpshort", "--helpfull"])
# Flags of other programs -> the flag to use here.
_NAMES_ELSEWHERE = {
    **dict.fromkeys(("lr", "learning_rate", "meta_lr"), "--outer_lr"),
    **dict.fromkeys(("epochs", "num_epochs", "iterations", "steps"), "--num_steps"),
    **dict.fromkeys(("batch_size", "batch", "tasks"), "--meta_batch_size"),
    **dict.fromkeys(("output", "output_dir", "out", "log_dir", "logdir"), "--workdir"),
    **dict.fromkeys(("data", "dataset", "data_dir"), "--data_path"),
    **dict.fromkeys(("gpu", "device", "cuda"), "CUDA_VISIBLE_DEVICES in front of it"),
    **dict.fromkeys(("eval", "evaluate", "test"), "--mode=evaluate"),
}
# Arguments of `embed`, useless without --images.
_NEED_PICTURES = (
    *("features_dir", "backbone", "backbone_weights", "image_size", "views"),
    "skip_bad_images",
)
# Data settings that do not apply to pictures, and why.
_NOT_OF_PICTURES = {
    "data_path": "The pictures are the data.",
    "embedding_crop": "--views chooses the crop.",
    "val_classes": "--class_split divides the classes.",
    "trust_data_files": "It is for Parquet and Arrow files.",
}
# --dataset_name is miniImageNet in the release.
_DEFAULTS = (
    "Settings that the original release has keep its defaults, except for",
    "--dataset_name. Presets override them. Without flags the preset is glyphs.",
)
_ON_FEATURES = ("train", "search", "compare", "reproduce")
_EXAMPLES = (
    ("", "Train and test on the embedded characters."),
    ("--data_path=features --shot=5 --num_steps=5000", "Use your own features."),
    ("--images=pictures", "Go from a folder of pictures to a model to deploy."),
    ("--mode=evaluate --workdir=runs/glyphs_5way_1shot", "Test the best step again."),
)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """A parsed command line.

    Attributes:
      workdir: the run directory, or "" for one that the program chooses.
      config: the configuration to train. To evaluate, the run directory's counts
        instead, changed by those of `explicit` that can be changed afterwards.
      explicit: settings that the user typed, by name, including `preset`.
      arguments: further arguments of the function that does the mode's job, by name.
      pictures: arguments of `embed` for a job on features of pictures; else empty.
    """

    mode: str
    workdir: str
    config: Config
    explicit: Mapping[str, Any]
    debug: bool
    quiet: bool
    arguments: Mapping[str, Any]
    pictures: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _Parser(absl_flags.ArgumentParser):
    """Parses one flag's text by its option's rule."""

    def __init__(self, option):
        self.option = option
        self.syntactic_help = option.rule.expected

    def parse(self, argument):
        return self.option.value(argument)


def define_flags(flag_values: absl_flags.FlagValues) -> None:
    """Defines a flag for every option. Its value is None unless it was typed."""
    for option in OPTIONS.values():
        parser, is_boolean = _Parser(option), option.rule.kind is bool
        serializer: Any = absl_flags.ArgumentSerializer()  # generic since absl 2
        words = option.name, None, option.help
        flag = absl_flags.Flag(parser, serializer, *words, boolean=is_boolean)
        absl_flags.DEFINE_flag(flag, flag_values)


def parse(argv: Sequence[str]) -> RunOptions:
    """Parses a command line. `--help` and `--version` print and exit with 0.

    Args:
      argv: the program's name, then its arguments. A bare `--` is skipped, because
        the release's README writes one before the flags.

    Raises:
      FlagError: naming the first flag that is wrong, as it was typed.
      SystemExit: after help or version.
    """
    flag_values = absl_flags.FlagValues()
    define_flags(flag_values)
    arguments = [argument for argument in argv if argument != "--"]
    if not _HELP.isdisjoint(arguments[1:]):
        print(help_text(os.path.basename(arguments[0])), flush=True)
        sys.exit(0)
    if "--version" in arguments[1:]:
        print(f"leo-tf {leo_tf.__version__}", flush=True)
        sys.exit(0)
    try:
        if not {"--flagfile=", "-flagfile="}.isdisjoint(arguments):
            raise ValueError("no name")  # absl would ignore it
        read = flag_values.read_flags_from_files(arguments[1:])
    except (absl_flags.Error, OSError, ValueError) as error:
        expected = "a file of flags"
        received = quoted(str(error.__context__ or error))
        raise FlagError("--flagfile", expected, received) from None
    try:
        rest = flag_values([arguments[0], *read])
    except (absl_flags.Error, ValueError) as error:
        raise _as_flag_error(error, flag_values) from None
    if len(rest) > 1:
        raise FlagError("arguments", "flags only, as --name=value", quoted(rest[1]))
    return options_from_flags(flag_values)


def options_from_flags(flag_values: absl_flags.FlagValues) -> RunOptions:
    """Turns parsed flags into `RunOptions`.

    Raises:
      FlagError: if flags contradict each other or data is missing.
    """
    given = _given(flag_values)
    mode = given.pop("mode", "from_images" if "images" in given else "train")
    workdir = given.pop("workdir", "")
    debug, quiet = given.pop("debug", False), given.pop("quiet", False)
    check_mode(mode, workdir, given)
    arguments = {
        option.argument: given.pop(option.name, option.default)
        for option in OPTIONS.values()
        if mode in option.modes and option.target == option.name
        if option.name in given or option.default is not REQUIRED
    }
    if arguments.get("cluster") and arguments.get("jobs") == 0:
        raise FlagError("--jobs", "none with --cluster", "0")
    pictures = arguments.get("images")
    if mode != "export":
        _check_pictures(pictures, given, arguments)
    config = _config(given, pictures)
    embedded = {}
    if mode in _ON_FEATURES:
        names = ("images", *_NEED_PICTURES)
        embedded = {name: arguments.pop(name) for name in names}
        if pictures is None:
            embedded = {}
            _check_data(config, given)
        elif mode != "compare" and config.data.class_folds and config.data.fold is None:
            expected = f"a number from 0 to {config.data.class_folds - 1}"
            hint = "--mode=compare tests all folds."
            raise FlagError("--fold", expected, "nothing", hint)
    explicit = MappingProxyType(given)
    return RunOptions(
        mode, workdir, config, explicit, debug, quiet, arguments, embedded
    )


def _given(flag_values: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns target -> value of the flags that were given, aliases resolved."""
    given: dict[str, Any] = {}
    typed: dict[str, str] = {}
    zero_steps = False
    for option in OPTIONS.values():
        value = flag_values[option.name].value
        if value is None:
            continue
        if option.name == "checkpoint_steps" and value == 0:
            zero_steps = True  # the release's evaluation requires it
            continue
        target, value = option.target, _converted(option, value)
        if target in given and given[target] != value:
            where = f"--{option.name} and --{typed[target]}"
            received = f"{quoted(value)} and {quoted(given[target])}"
            raise FlagError(where, f"one value of --{target}", received)
        given[target], typed[target] = value, option.name
    if zero_steps and given.get("mode") != "evaluate":
        hint = "0 is for --evaluation_mode, as in the release."
        raise FlagError("--checkpoint_steps", "1 or more to train", "0", hint)
    return given


def _converted(option: Option, value: Any) -> Any:
    """Returns the value of a typed flag, whose name its errors begin with."""
    try:
        return option.convert(value)
    except FlagError as error:
        where = f"--{option.name}: {error.where}"
        parts = where, error.expected, error.received, error.hint
        raise FlagError(*parts) from None


def _check_pictures(pictures, given, arguments) -> None:
    """Refuses flags for features with --images, and flags for pictures without it."""
    for name, reason in _NOT_OF_PICTURES.items():
        if pictures is not None and name in given:
            expected, received = f"no --{name} with --images", quoted(given[name])
            raise FlagError(f"--{name}", expected, received, reason)
    for name in _NEED_PICTURES:
        if pictures is None and arguments.get(name):
            raise FlagError(f"--{name}", "--images too", "no --images")


def _config(given, pictures) -> Config:
    """Returns the defaults, overridden by the preset, then by the flags given."""
    asks_for_data = (
        pictures is not None
        or "data_path" in given
        or (given.get("dataset_name", EMBEDDED_DATASET) != EMBEDDED_DATASET)
    )
    name = given.get("preset", "" if asks_for_data else EMBEDDED_DATASET)
    config = PRESETS[name].config() if name else Config()
    config = config.replace(**{k: v for k, v in given.items() if k in GROUP_OF})
    if "data_path" in given and "dataset_name" not in given:
        config = config.replace(dataset_name=dataset_of(config.data))
    return config


def _check_data(config, given) -> None:
    data = config.data
    if not data.data_path and not data.is_embedded:
        if "preset" in given and "dataset_name" not in given:
            expected = f"the official embeddings, for --preset={config.preset}"
            hint = f"They are at {_OFFICIAL_EMBEDDINGS}."
            raise FlagError("--data_path", expected, "nothing", hint)
        expected = f"{EMBEDDED_DATASET}, the one embedded data set, or --data_path too"
        raise FlagError("--dataset_name", expected, quoted(data.dataset_name))


def _as_flag_error(error, flag_values) -> FlagError:
    """Returns the one-line error for what absl raised."""
    if isinstance(error.__context__, FlagError):  # raised by `Option.value`
        return error.__context__
    if isinstance(error, absl_flags.UnrecognizedFlagError):
        # absl's own function for this is private; difflib's is as good.
        name = error.flagname
        close = difflib.get_close_matches(name, list(flag_values), n=2)
        likely = _NAMES_ELSEWHERE.get(name) or " or ".join(f"--{c}" for c in close)
        hint = f"Did you mean {likely}?" if likely else "--help lists all."
        where = quoted(f"--{name}")[1:-1]
        return FlagError(where, "a known flag", "an unknown one", hint)
    flag = re.search(r"--?(\w+)", str(error), re.ASCII)
    where = f"--{flag[1]}" if flag else "arguments"
    return FlagError(where, "a flag and its value, as --help says", quoted(str(error)))


def help_text(program: str) -> str:
    """Returns the text of `--help`: presets, then all options under headings."""
    program = {"__main__.py": "python -m leo_tf"}.get(program, program)
    lines = [f"usage: {program} [--name=value ...]", "", "Examples:"]
    for flags, meaning in _EXAMPLES:
        lines += [f"  {program} {flags}".rstrip(), f"      {meaning}"]
    lines += ["", "Presets:"]
    width = max(map(len, PRESETS))
    for preset in PRESETS.values():
        lines.append(f"  {preset.name:{width}}  {preset.description}")
    lines += ["", *_DEFAULTS]
    for group in dict.fromkeys(o.group for o in OPTIONS.values() if o.group):
        lines += ["", f"{group}:"]
        for option in OPTIONS.values():
            lines += _help_of(option) if option.group == group else []
    lines += ["", "Paths are local and in UTF-8; a bucket must be mounted."]
    lines += ["--flagfile=FILE reads flags from a file, one per line."]
    return "\n".join(lines)


def _help_of(option: Option) -> list[str]:
    is_boolean = option.rule.kind is bool
    name = f"  --[no]{option.name}" if is_boolean else f"  --{option.name}"
    notes = [*([] if is_boolean else [option.accepted]), *(option.notes or ())]
    notes += [f"modes: {', '.join(option.modes)}"] if option.modes else []
    notes += [o.help for o in OPTIONS.values() if o.target == option.name != o.name]
    text = f"{option.help} ({'; '.join(notes)})" if notes else option.help
    return [name, *(" " * 6 + line for line in textwrap.wrap(text, 74))]
