"""Serves exported models over HTTP: `--mode=serve`.

Starlette on uvicorn: both are small, well kept and pure Python, and the protocol is
TensorFlow Serving's, so that nothing a larger framework brings would be used. They are
the extra `serve`; nothing here is imported by training.
"""

import contextlib
import importlib.util
import signal
import socket

from leo_tf.cli.flags import RunOptions
from leo_tf.console import say
from leo_tf.errors import FlagError

_PACKAGES = ("starlette", "uvicorn")
# How long requests that run may take when the server is asked to stop.
_SECONDS_TO_FINISH = 30
# How long an idle connection is kept. One that is closed just when its client sends
# again loses that request, so this is longer than clients think between two.
_SECONDS_IDLE = 75
# Each holds a file descriptor, of which a process may have 1,024 on most systems.
_MOST_CONNECTIONS = 900


def start_up() -> None:
    """Takes the seconds that loading TensorFlow takes, once it is sure to be needed.

    Raises:
      FlagError: if the packages of the extra are not installed.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            expected = "the packages of the extra `serve`"
            hint = "pip install 'leo-tf[serve]' brings them."
            raise FlagError("--mode=serve", expected, f"no {package}", hint)
    import tensorflow as tf

    tf.config.list_logical_devices()


def serve(options: RunOptions) -> int:
    """Answers requests until SIGINT or SIGTERM, and finishes those that run then.

    Returns:
      The exit status, 0; a signal ends with that too.

    Raises:
      FlagError: if nothing can listen at host and port.
      InputError: if the directory has no version that works.
    """
    import uvicorn

    from leo_tf.serving.model_versions import Versions
    from leo_tf.serving.rest_api import application

    with bound(options.host, options.port) as listening:
        versions = Versions(
            options.export_dir,
            warn=lambda text: say(f"warning: {text}"),
            tell=lambda text: say(text, options.quiet),
        )
        versions.refresh()
        served = versions.require()
        versions.watch()
        listening.listen()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
        say(_described(served, listening), options.quiet)
        app = application(versions, options.max_request_bytes)
        with contextlib.closing(versions):
            uvicorn.Server(configured(app)).run(sockets=[listening])
    return 0


def _leave(unused_number, unused_frame):
    """For signals before uvicorn runs, and those it raises again when it has ended."""
    raise SystemExit(0)


def configured(application):
    """uvicorn's configuration: quiet, and patient with what runs when it stops."""
    import uvicorn

    return uvicorn.Config(
        application,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_SECONDS_IDLE,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address, and does not listen yet: nothing is loaded.

    Raises:
      FlagError: if it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Unless the protocol is named, asyncio does not recognise TCP and leaves Nagle's
    # algorithm on: each answer of two packets then takes 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        return bound
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        received = f"{host}:{port}: {reason}"
        hint = "--port=0 takes any free one."
        expected = "an address that can be listened on"
        raise FlagError("--host, --port", expected, received, hint) from None


def _described(served, listening) -> str:
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    method = served.facts.get("method", "model")
    where = f"http://{host}:{port}"
    return f"Serving {method}, version {served.version}, on {where} ({where}/docs)."
