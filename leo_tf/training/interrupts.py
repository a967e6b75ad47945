"""Ends a long loop in good order when the process is asked to stop."""

import signal
import threading

from leo_tf.errors import Stopped


class StopRequest:
    """A context manager that notes the first SIGINT or SIGTERM instead of dying of it.

    `signal` is its number, or None. A second one ends the process at once. Outside of
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
            signal.signal(number, handler)

    def check(self, *unused: object) -> None:
        """For work that can be given up, and done again from its beginning.

        Raises:
          Stopped: if a signal came.
        """
        if self.signal is not None:
            raise Stopped(self.signal)

    def _note(self, number, unused_frame):
        self.signal = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
