"""Runs calls in a process forked from that of the tests."""

import os
import select
import signal
import warnings


def in_fork(call, seconds=60.0) -> str:
    """Returns as text what `call` returns or raises in a fork; kills it if it hangs."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks and threads
        child = os.fork()
    if not child:
        try:
            said = str(call())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    try:
        is_there = select.select([read], [], [], seconds)[0]
        return os.read(read, 2**16).decode() if is_there else "nothing: it hangs"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
