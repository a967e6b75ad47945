"""Which flags go with which mode."""

from collections.abc import Mapping
from typing import Any

from leo_tf.cli.options import OPTIONS
from leo_tf.errors import FlagError

_METHODS = {
    "method": "--methods has them",
    "deterministic": "--methods=leo_deterministic has it",
    "random_prior": "--methods=leo_random_prior has it",
}
# Settings that these modes give to their runs themselves.
_MAKES_ITS_OWN = {
    "compare": _METHODS,
    "search": {
        **_METHODS,
        "train_on_val": "it selects on the validation classes",
    },
    "reproduce": {"train_on_val": "it trains first without, then with"},
}


def check_mode(mode: str, given: Mapping[str, Any]) -> None:
    """Refuses flags of other modes: nothing would come of them.

    Raises:
      FlagError: naming the first of them.
    """
    for name in given:
        modes = OPTIONS[name].modes
        if modes and mode not in modes:
            raise FlagError(
                f"--{name}", f"--mode={' or '.join(modes)}", f"--mode={mode}"
            )


def check_directories(
    mode: str, workdir: str, arguments: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Sees that a mode has the directories it needs, and no flag it has no use for.

    Args:
      mode: what to do.
      workdir: as given, or "".
      arguments: what the mode's function gets; `export_dir` may be among it.
      given: the other flags that were given.

    Raises:
      FlagError: naming the first flag that is missing or too many.
    """
    if mode == "evaluate" and not workdir:
        raise FlagError("--workdir", "the run directory to evaluate", "nothing")
    if mode in _MAKES_ITS_OWN:
        for name in given:
            if name in _MAKES_ITS_OWN[mode]:
                reason = _MAKES_ITS_OWN[mode][name]
                expected = f"no such flag with --mode={mode}: {reason}"
                raise FlagError(f"--{name}", expected, "one")
    export_dir = arguments.get("export_dir", "")
    if mode == "export":
        _check_export(workdir, export_dir, given)
    if mode == "serve":
        _check_serving(workdir, export_dir, given)


def _check_export(workdir, export_dir, given):
    if not workdir:
        raise FlagError("--workdir", "the run directory to export", "nothing")
    if not export_dir:
        raise FlagError("--export_dir", "a directory for exported models", "nothing")
    for name in given:
        expected = "no setting with --mode=export: the run has its own"
        raise FlagError(f"--{name}", expected, "one")


def _check_serving(workdir, export_dir, given):
    if not export_dir:
        raise FlagError("--export_dir", "the directory of models to serve", "nothing")
    for name in [*(["workdir"] if workdir else []), *given]:
        expected = "no flag of training or evaluation with --mode=serve"
        raise FlagError(f"--{name}", expected, "one")
