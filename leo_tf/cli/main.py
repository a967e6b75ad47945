"""The command line: flags -> one function of `experiment`; errors -> one line."""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import traceback
import warnings

from leo_tf.cli.flags import RunOptions, parse
from leo_tf.console import Console
from leo_tf.errors import DiskError, InputError, LeoError, shown

# What a full or failing disk says, whoever writes to it.
_DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
_OUT_OF_MEMORY = "ResourceExhaustedError"  # TensorFlow's


def main(argv: list[str] | None = None) -> int:
    """Runs a command line.

    Args:
      argv: the program's name, then its arguments; `sys.argv` if None.

    Returns:
      The exit status: 0; 2 for flags, 3 for input, 4 for a checkpoint, 5 for the
      disk, 6 for a training that diverged, 7 for a worker that has gone, each after one
      line on standard error; 128 plus a signal's number.
    """
    argv = sys.argv if argv is None else argv
    _prepare_streams()
    debug = "--debug" in argv
    # Whatever else is installed, this package computes with TensorFlow.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    warnings.formatwarning = lambda message, *unused: f"warning: {message}\n"
    try:
        options = parse(argv)
        debug = options.debug
        with contextlib.nullcontext() if debug else _without_start_up_messages():
            # Takes seconds: not before the flags are known to be right.
            job = _job(options.mode, options.config.run.strategy)
        status = job(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        _discard(sys.stdout)
        return 141
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        _flush_output()
        _say(f"{traceback.format_exc() if debug else ''}error: {mistake}")
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


def _prepare_streams() -> None:
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = _null()
    if sys.stderr is None:
        sys.stderr = _null()
    for stream in (sys.stdout, sys.stderr):  # a terminal may not know our "±"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _say(line: str) -> None:
    """Prints on standard error; where that fails, the exit status must do."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)


def _discard(stream) -> None:
    """Lets what is still to be written go nowhere, or Python fails at its exit."""
    with contextlib.suppress(OSError), _null() as null:  # not all have a descriptor
        os.dup2(null.fileno(), stream.fileno())


def _null():
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _job(mode: str, strategy: str):
    """The function that does what is asked, TensorFlow loaded."""
    _do_without_temporary_directory()
    if mode == "serve":
        from leo_tf.serving import server

        server.start_up()
        return _serve
    import tensorflow as tf

    from leo_tf import environment
    from leo_tf.cli import dispatch as experiment

    # Each method's functions are made anew, on purpose: no news for the user.
    tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.msg)
    if strategy != "multi_worker":  # workers must find each other first
        environment.device()
    return experiment.run


def _serve(options: RunOptions) -> int:
    from leo_tf.serving import server

    server.serve(
        options.export_dir,
        host=options.host,
        port=options.port,
        max_request_bytes=options.max_request_bytes,
        console=Console(options.quiet),
    )
    return 0


def _do_without_temporary_directory() -> None:
    """TensorFlow asks where it is while loading, and fails if there is none."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.devnull  # a name, below which nothing can be made


@contextlib.contextmanager
def _without_start_up_messages():
    """Keeps what TensorFlow's libraries print while loading off the terminal.

    They write a dozen lines to file descriptor 2 before any setting of theirs is
    heeded (tensorflow issue 100442). If loading fails, everything is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        sys.stderr.flush()
        terminal, messages = os.dup(2), _scratch_file()
    except OSError:  # without a terminal, or a place for them, nothing is hidden
        yield
        return
    with messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(terminal, 2)
            messages.seek(0)
            shutil.copyfileobj(messages, sys.stderr)
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _scratch_file():
    """An open file of text without a name.

    Raises:
      OSError: if there is no room for one.
    """
    if hasattr(os, "memfd_create"):  # needs no directory that can be written
        return os.fdopen(os.memfd_create("messages"), "w+", errors="replace")
    return tempfile.TemporaryFile("w+", errors="replace")
