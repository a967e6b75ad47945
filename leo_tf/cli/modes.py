"""Rules for the flags of each mode."""

from collections.abc import Mapping
from typing import Any

from leo_tf.cli.options import OPTIONS
from leo_tf.errors import FlagError, quoted

# Required directories and pictures of a mode.
_NEEDED = {
    "evaluate": {"workdir": "the run directory to evaluate"},
    "export": {
        "workdir": "the run directory to export",
        "export_dir": "a directory for exported models",
    },
    "serve": {"export_dir": "the directory of models to serve"},
    "pretrain": {
        "images": "the pictures to train on",
        "workdir": "a directory for the backbone",
    },
    "embed": {
        "images": "the pictures",
        "features_dir": "a directory for their features",
    },
    "from_images": {"images": "the pictures"},
}
_METHODS = {
    "method": "Use --methods.",
    "deterministic": "Use --methods=leo_deterministic.",
    "random_prior": "Use --methods=leo_random_prior.",
}
_NOT_ITS_METHODS = (
    "It compares methods of its own. For others run --mode=embed, then --mode=compare."
)
# Settings that these modes set for their runs, and what to do instead or why.
_MAKES_ITS_OWN = {
    "compare": _METHODS,
    "from_images": {
        **dict.fromkeys(_METHODS, _NOT_ITS_METHODS),
        "preset": "It has its own settings, which other flags override.",
        "train_on_val": "It selects on the validation classes.",
    },
    "search": {
        **_METHODS,
        "train_on_val": "It selects on the validation classes.",
        "test_samples": "It tests nothing.",
    },
    "reproduce": {
        "train_on_val": "It trains without the validation classes, then with them.",
    },
}
# Settings that modes for pictures accept.
_OF_PICTURES = {
    "pretrain": (
        *("class_split", "class_folds", "fold", "split_seed"),
        *("seed", "mixed_precision", "strategy"),
    ),
    "embed": ("class_split", "class_folds", "fold", "split_seed"),
}
# Modes without settings.
_NO_SETTINGS = {
    "pretrain": "no setting of LEO with --mode=pretrain",
    "embed": "no setting of LEO with --mode=embed",
    "export": "no setting with --mode=export: the run has its own",
    "serve": "no flag of training or evaluation with --mode=serve",
}


def check_mode(mode: str, workdir: str, given: Mapping[str, Any]) -> None:
    """Checks that a mode has all required flags, and none that it does not use.

    Raises:
      FlagError: naming the first missing or unused flag.
    """
    for name in given:
        modes = OPTIONS[name].modes
        if modes and mode not in modes:
            expected = f"--mode={' or '.join(modes)}"
            raise FlagError(f"--{name}", expected, f"--mode={mode}")
    directories = {**given, "workdir": workdir}
    for name, expected in _NEEDED.get(mode, {}).items():
        if not directories.get(name):
            raise FlagError(f"--{name}", expected, "nothing")
    reasons = _MAKES_ITS_OWN.get(mode, {})
    too_many = {name: f"no --{name} with --mode={mode}" for name in reasons}
    if mode in _NO_SETTINGS:
        settings = [name for name in given if not OPTIONS[name].modes]
        known = _OF_PICTURES.get(mode, ())
        settings = [name for name in settings if name not in known]
        if mode in ("serve", "embed") and workdir:
            settings.insert(0, "workdir")
        too_many = dict.fromkeys(settings, _NO_SETTINGS[mode])
    for name in ("workdir", *given):
        if name in too_many:
            received, hint = quoted(directories[name]), reasons.get(name, "")
            raise FlagError(f"--{name}", too_many[name], received, hint)
