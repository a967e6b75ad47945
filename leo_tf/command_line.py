"""The command line: flags -> one function of `experiment`; errors -> one line."""

import contextlib
import os
import shutil
import sys
import tempfile
import traceback
import warnings

from configs.errors import LeoError
from configs.flags import parse


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
    for stream in (sys.stdout, sys.stderr):  # a terminal may not know our "±"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
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
        return job(options)
    except LeoError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _job(mode: str, strategy: str):
    """The function that does what is asked, TensorFlow loaded."""
    if mode == "serve":
        from leo_tf import server

        server.start_up()
        return server.serve
    import tensorflow as tf

    from leo_tf import experiment, training

    # Each method's functions are made anew, on purpose: no news for the user.
    tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.msg)
    if strategy != "multi_worker":  # workers must find each other first
        training.device()
    return experiment.run


@contextlib.contextmanager
def _without_start_up_messages():
    """Keeps what TensorFlow's libraries print while loading off the terminal.

    They write a dozen lines to file descriptor 2 before any setting of theirs is
    heeded (tensorflow issue 100442). If loading fails, everything is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as messages:
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
