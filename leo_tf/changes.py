"""What differs between a run and the command that would go on with it."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from configs.errors import LeoError, shown

# Wide enough for the first digits of a digest, and for a path cut by `shown`.
_TABLE_WIDTH = 200


class Change(NamedTuple):
    """A field, its value in the run, and now."""

    field: str
    before: object
    now: object

    def __str__(self):
        return f"{self.field} is {shown(self.before)} there and {shown(self.now)} here"


def check_changes(changes: Sequence[Change], allowed: bool, refusal: LeoError) -> None:
    """Shows what differs as a table on standard error, and refuses it unless allowed.

    Args:
      changes: what differs; if nothing, nothing happens.
      allowed: whether to go on.
      refusal: raised if not.

    Raises:
      LeoError: `refusal`.
    """
    if not changes:
        return
    table = Table(box=box.SIMPLE)
    for title in ("field", "the run's", "now"):
        table.add_column(title, overflow="fold")
    for change in changes:
        table.add_row(change.field, shown(change.before), shown(change.now))
    console = Console(file=sys.stderr, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _TABLE_WIDTH
    console.print(table)
    if not allowed:
        raise refusal
