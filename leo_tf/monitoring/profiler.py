"""A TensorFlow profile of some steps, beside the event files."""

import contextlib
import logging
import pathlib

import tensorflow as tf

from leo_tf.errors import FlagError
from leo_tf.files import AnyPath


class Profile(contextlib.AbstractContextManager):
    """Profiles TensorFlow in some steps. A failure is logged, and training continues.

    As a context manager it writes an unfinished profile if training ends early.
    `directory` is that of the event files. `steps` are the first and the last, counted
    from 1, or None for no profile.
    """

    def __init__(self, directory: AnyPath, steps: tuple[int, int] | None = None):
        self.directory, self.steps = pathlib.Path(directory), steps
        self._is_running = False

    def check(self, done: int, num_steps: int) -> None:
        """Raises a FlagError unless the steps are still to be made."""
        if self.steps and not done < self.steps[0] <= self.steps[1] <= num_steps:
            first, last = self.steps
            expected = f"steps from {done + 1} to {num_steps}, which are not done yet"
            raise FlagError("--profile_steps", expected, f"{first}-{last}")

    def until_next(self, step: int) -> list[int]:
        """Returns the steps from `step` to the profile's begin and end, if ahead."""
        first, last = self.steps or (0, 0)
        return [event - step for event in (first - 1, last) if event > step]

    def before(self, step: int) -> None:
        """Begins the profile if its first step follows `step`."""
        if self.steps and step + 1 == self.steps[0]:
            start = tf.profiler.experimental.start
            self._is_running = self._attempt(start, str(self.directory))

    def after(self, step: int) -> None:
        """Writes the profile if `step` was the last."""
        if self.steps and step >= self.steps[1]:
            self._end()

    def __exit__(self, *unused: object) -> None:
        self._end()

    def _end(self):
        if self._is_running:
            self._is_running = False
            self._attempt(tf.profiler.experimental.stop)

    def _attempt(self, action, *arguments) -> bool:
        try:
            action(*arguments)
        except (OSError, tf.errors.OpError) as error:
            logging.warning("No profile is written: %s", error)
            return False
        return True
