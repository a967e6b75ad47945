"""The command line: runs one job of `jobs`, and prints errors in one line."""

import contextlib
import errno
import importlib.util
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from leo_tf.cli import streams
from leo_tf.cli.flags import RunOptions, parse
from leo_tf.console import Console
from leo_tf.data_pipeline.release_layout import check_exists
from leo_tf.environment import cores, device, import_tensorflow, quick_exit
from leo_tf.errors import (
    DiskError,
    InputError,
    LeoError,
    Stopped,
    one_line,
    quoted,
)

# Errors of a full or failing disk.
_DISK_ERRORS = frozenset(
    [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS]
)
# Most workers to start before the number of runs is known.
_MOST_EARLY = 4
_EXHAUSTED = "ResourceExhaustedError"  # TensorFlow's, of memory or a full disk
_FULL = os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)


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
        if "data_path" in options.explicit:  # before waiting for TensorFlow
            check_exists(os.path.abspath(options.config.data.data_path))
        if options.arguments.get("jobs", 0) != 0:
            # Otherwise this process would reserve the GPU memory of its workers.
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if sys.stderr.isatty() and not options.quiet:
            streams.say("Loading TensorFlow takes a few seconds.")
        quiet = (
            contextlib.nullcontext() if debug else streams.without_start_up_messages()
        )
        with contextlib.ExitStack() as stack:
            with quiet:
                if not options.pictures:  # embedding first uses all cores
                    stack.enter_context(_workers(**options.arguments))
                # Takes seconds, so flags are checked before.
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
    except BrokenPipeError:  # the reader of our output has closed it
        streams.discard(sys.stdout)
        return 141
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        streams.flush_output()
        streams.say(f"{traceback.format_exc() if debug else ''}error: {mistake}")
        return mistake.exit_code


def command() -> NoReturn:
    """Runs the command line and exits.

    On success it exits without unloading TensorFlow. Workers of TF_CONFIG do unload it,
    because others may still need this process.
    """
    succeeded, status = quick_exit(), main()
    if status == 0 and "tensorflow" in sys.modules and "TF_CONFIG" not in os.environ:
        succeeded.set()
    sys.exit(status)


def _mistake(error: Exception) -> LeoError | None:
    """Returns the error as one that the user can fix; None if it is our bug."""
    if isinstance(error, LeoError):
        return error
    # By name: TensorFlow may not be loaded.
    exhausted = type(error).__name__ == _EXHAUSTED
    if exhausted and any(text in str(error) for text in _FULL):
        text = one_line(str(error).rpartition("}} ")[2])
        return DiskError("a file of TensorFlow", "to write here", text)
    if isinstance(error, MemoryError) or exhausted:
        hint = "Fewer episodes at a time, or a smaller model, need less memory."
        return InputError("memory", "enough for this run", quoted(str(error)), hint)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = error.filename or "standard output, or a file"
        return DiskError(where, "to write here", str(error))
    return None


def _job(mode: str, strategy: str) -> Callable[[RunOptions, Console], None]:
    """Loads TensorFlow and returns the function that does the mode's job."""
    _do_without_temporary_directory()
    if mode == "serve":
        from leo_tf.serving import server

        server.check_installed()
    try:
        import_tensorflow()
    except (AttributeError, ImportError, RuntimeError, ValueError) as error:
        hint = "An environment variable or the installation prevents it."
        received = f"{type(error).__name__}: {error}"
        raise InputError("tensorflow", "to be loaded", received, hint) from error

    if strategy != "multi_worker":  # workers must connect first
        device()
    if mode == "serve":
        return lambda options, console: server.serve(
            **options.arguments, console=console
        )
    from leo_tf.cli.jobs import JOBS

    return JOBS[mode]


def _workers(
    jobs: int | None = 0, run_cpus: int = 1, cluster: str = "", **unused: Any
) -> contextlib.AbstractContextManager[None]:
    """Starts the first workers of a job, which load TensorFlow at the same time."""
    if jobs == 0 or cluster:
        return contextlib.nullcontext()
    from leo_tf.experiments.runner import local

    jobs = jobs or max(1, cores() // run_cpus)
    return local.started_early(min(jobs, _MOST_EARLY), run_cpus)


def _do_without_temporary_directory() -> None:
    """Keeps loading TensorFlow from failing without a temporary directory."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.devnull  # a path below which nothing can be created


def _do_without_settings_of_others() -> None:
    """Overrides settings of Keras and matplotlib that could break this program.

    Commands started from a notebook inherit its MPLBACKEND, and a matplotlibrc may
    require LaTeX.
    """
    os.environ.update(KERAS_BACKEND="tensorflow", MPLBACKEND="agg")
    for name in ("TF_FUNCTION_JIT_COMPILE_DEFAULT", "KERAS_NNX_ENABLED"):
        os.environ.pop(name, None)  # not all functions compile; NNX needs JAX
    found = importlib.util.find_spec("matplotlib")
    if found and found.origin:
        own = os.path.join(os.path.dirname(found.origin), "mpl-data", "matplotlibrc")
        os.environ["MATPLOTLIBRC"] = own
