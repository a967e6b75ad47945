"""The command line: flags -> one job of `jobs`; errors -> one line."""

import contextlib
import errno
import importlib.util
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable

from leo_tf.cli import streams
from leo_tf.cli.flags import RunOptions, parse
from leo_tf.console import Console
from leo_tf.data_pipeline.release_layout import check_exists
from leo_tf.errors import DiskError, InputError, LeoError, Stopped, shown

# What a full or failing disk says, whoever writes to it.
_DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
_OUT_OF_MEMORY = "ResourceExhaustedError"  # TensorFlow's


def main(argv: list[str] | None = None) -> int:
    """Runs a command line.

    Args:
      argv: the program's name, then its arguments; `sys.argv` if None.

    Returns:
      The exit status: 0; that of a `LeoError`, after one line on standard error; 128
      plus a signal's number.
    """
    argv = sys.argv if argv is None else argv
    streams.prepare_streams()
    debug = "--debug" in argv
    _do_without_settings_of_others()
    warnings.formatwarning = lambda message, *unused: f"warning: {message}\n"
    try:
        options = parse(argv)
        debug = options.debug
        if "data_path" in options.explicit:  # told before TensorFlow is waited for
            check_exists(os.path.abspath(options.config.data.data_path))
        if options.arguments.get("jobs", 0) != 0:
            # Else this process would take the memory of the GPUs from its workers.
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if sys.stderr.isatty() and not options.quiet:
            streams.say("Loading TensorFlow takes a few seconds.")
        with contextlib.nullcontext() if debug else streams.without_start_up_messages():
            # Takes seconds: not before the flags are known to be right.
            job = _job(options.mode, options.config.run.strategy)
        job(options, Console(options.quiet))
        sys.stdout.flush()
        return 0
    except Stopped as stop:
        streams.flush_output()
        return 128 + stop.signal
    except KeyboardInterrupt:
        streams.say("interrupted")
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        streams.discard(sys.stdout)
        return 141
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        streams.flush_output()
        streams.say(f"{traceback.format_exc() if debug else ''}error: {mistake}")
        return mistake.exit_code


def _mistake(error: Exception) -> LeoError | None:
    """What the user can mend, or None: then it is a bug of ours."""
    if isinstance(error, LeoError):
        return error
    # By name: TensorFlow may not be loaded.
    if isinstance(error, MemoryError) or type(error).__name__ == _OUT_OF_MEMORY:
        hint = "Fewer episodes at a time, or a smaller model, take less."
        return InputError("memory", "enough for this run", shown(str(error)), hint)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = error.filename or "standard output, or a file"
        return DiskError(where, "to write here", str(error))
    return None


def _job(mode: str, strategy: str) -> Callable[[RunOptions, Console], None]:
    """The function that does what is asked, TensorFlow loaded."""
    _do_without_temporary_directory()
    if mode == "serve":
        from leo_tf.serving import server

        server.start_up()
        return lambda options, console: server.serve(
            **options.arguments, console=console
        )
    try:
        import tensorflow  # noqa: F401
    except (AttributeError, ImportError, RuntimeError, ValueError) as error:
        hint = "A variable of the environment, or the installation, keeps it from that."
        received = f"{type(error).__name__}: {error}"
        raise InputError("tensorflow", "to be loaded", received, hint) from error

    from leo_tf.cli.jobs import JOBS
    from leo_tf.environment import device

    if strategy != "multi_worker":  # workers must find each other first
        device()
    return JOBS[mode]


def _do_without_temporary_directory() -> None:
    """TensorFlow asks where it is while loading, and fails if there is none."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.devnull  # a name, below which nothing can be made


def _do_without_settings_of_others() -> None:
    """Loading TensorFlow loads Keras and matplotlib, and theirs can end us.

    A notebook hands its MPLBACKEND on to every command that is started from it; a
    matplotlibrc may want LaTeX.
    """
    os.environ.update(KERAS_BACKEND="tensorflow", MPLBACKEND="agg")
    for name in ("TF_FUNCTION_JIT_COMPILE_DEFAULT", "KERAS_NNX_ENABLED"):
        os.environ.pop(name, None)  # not all can be compiled; NNX is of JAX
    found = importlib.util.find_spec("matplotlib")
    if found and found.origin:
        own = os.path.join(os.path.dirname(found.origin), "mpl-data", "matplotlibrc")
        os.environ["MATPLOTLIBRC"] = own


if __name__ == "__main__":
    sys.exit(main())
