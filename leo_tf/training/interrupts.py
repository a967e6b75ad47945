"""Ends a long loop cleanly when the process receives SIGINT or SIGTERM."""

import signal
import threading

from leo_tf.errors import Stopped


class StopRequest:
    """A context manager that records the first SIGINT or SIGTERM.

    `signal` is its number, or None. A second signal ends the process at once. Outside
    the main thread, where Python cannot handle signals, it does nothing.
    """

    def __init__(self):
        self.signal: int | None = None
        self._before = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *unused_error: object) -> None:
        for number, handler in self._before.items():
            # None if a program in C that embeds Python has set it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def check(self, *unused: object) -> None:
        """Raises `Stopped` after a signal. Call it in work that can be repeated.

        Raises:
          Stopped: if a signal was received.
        """
        if self.signal is not None:
            raise Stopped(self.signal)

    def _note(self, number, unused_frame):
        self.signal = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
