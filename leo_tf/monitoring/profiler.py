"""A TensorFlow profile of some steps, beside the event files."""

import logging
import pathlib

import tensorflow as tf

from leo_tf.errors import FlagError
from leo_tf.files import AnyPath


class Profile:
    """Records what TensorFlow does in some steps; that it fails costs the profile only.

    As a context manager it writes what it has if training ends before the profile.

    Args:
      directory: of the event files; TensorBoard's profile plugin finds it below.
      steps: the first and the last step, counted from 1, or None for no profile.
    """

    def __init__(self, directory: AnyPath, steps: tuple[int, int] | None = None):
        self.directory, self.steps = pathlib.Path(directory), steps
        self._is_running = False

    def check(self, done: int, num_steps: int) -> None:
        """Checks that the steps are among those that are to be made.

        Raises:
          FlagError: if they are not.
        """
        if self.steps and not done < self.steps[0] <= self.steps[1] <= num_steps:
            first, last = self.steps
            expected = f"steps from {done + 1} to {num_steps}, which are still to do"
            raise FlagError("--profile_steps", expected, f"{first}-{last}")

    def until_next(self, step: int) -> list[int]:
        """How many steps after `step` the profile begins and ends, if it still will."""
        if not self.steps:
            return []
        first, last = self.steps
        return [event - step for event in (first - 1, last) if event > step]

    def before(self, step: int) -> None:
        """Begins if the first step comes after `step`."""
        if self.steps and step + 1 == self.steps[0]:
            self._is_running = self._attempt(
                lambda: tf.profiler.experimental.start(str(self.directory))
            )

    def after(self, step: int) -> None:
        """Writes the profile if `step` was the last."""
        if self.steps and step >= self.steps[1]:
            self._end()

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *unused: object) -> None:
        self._end()

    def _end(self):
        if self._is_running:
            self._is_running = False
            self._attempt(tf.profiler.experimental.stop)

    def _attempt(self, action) -> bool:
        try:
            action()
        except (OSError, tf.errors.OpError) as error:
            logging.warning("There will be no profile: %s", error)
            return False
        return True
