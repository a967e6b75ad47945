"""One flag: what it sets, what it takes, and how its text becomes a value."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs.errors import FlagError, shown
from configs.rules import Rule

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_READERS = {
    int: int,
    float: float,
    str: str,
    bool: lambda text: _BOOLEANS[text.lower()],
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One flag.

    Attributes:
      name: as typed, without dashes.
      target: what it sets; differs from `name` for a name of the release.
      rule: what values it takes.
      help: one sentence or two.
      group: the heading it stands under in `--help`; empty for a name of the
        release, which is shown with its target.
      facts: its default and its symbol in the paper, in words, where it has them.
      modes: the only modes that know it; empty where that is no matter of modes.
      convert: from the flag's value to the target's.
    """

    name: str
    target: str
    rule: Rule
    help: str
    group: str = ""
    facts: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    convert: Callable[[Any], Any] = lambda value: value

    def value(self, argument):
        """The checked value of the flag's text.

        Raises:
          FlagError: naming this flag.
        """
        where = f"--{self.name}"
        if argument == "":  # an unset variable of the shell, most likely
            raise FlagError(where, self.rule.expected, "nothing")
        if isinstance(argument, str):
            if argument.startswith("--"):  # the next flag, taken for a value
                raise FlagError(where, self.rule.expected, shown(argument))
            try:
                argument = _READERS[self.rule.kind](argument)
            except (ValueError, KeyError):
                received = shown(argument)
                raise FlagError(where, self.rule.expected, received) from None
        return self.rule.checked(argument, where)
