"""What differs between a run and the command that would go on with it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table

from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.dataset import Split
from leo_tf.errors import InputError, LeoError, shown


class Change(NamedTuple):
    """A field, its value in the run, and now."""

    field: str
    before: object
    now: object

    def __str__(self) -> str:
        return f"{self.field} is {shown(self.before)} there and {shown(self.now)} here"


def check_changes(
    changes: Sequence[Change],
    allowed: bool,
    refusal: LeoError,
    console: Console = SILENT,
) -> None:
    """Shows what differs as a table, and refuses it unless allowed.

    Args:
      changes: what differs; if nothing, nothing happens.
      allowed: whether to go on.
      refusal: raised if not.
      console: where to show the table.

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
    console.table(table)
    if not allowed:
        raise refusal


def check_unchanged(
    splits: Mapping[str, Split],
    digests: Mapping[str, str],
    allowed: bool = False,
    console: Console = SILENT,
) -> None:
    """Shows which splits are not those a run began with, and refuses them.

    Args:
      splits: name -> split, as loaded now.
      digests: name -> digest, as the run's checkpoint says.
      allowed: whether other data will do.
      console: where to show them.

    Raises:
      InputError: naming the source of the first that is another, unless allowed.
    """
    other = [
        name for name, split in splits.items() if split.digest != digests.get(name)
    ]
    if not other:
        return
    changes = [
        Change(f"data of {name}", digests.get(name), splits[name].digest)
        for name in other
    ]
    first = splits[other[0]]
    refusal = InputError(
        first.source,
        f"the data this run began with, of digest {shown(digests.get(other[0]))}",
        f"data of digest {shown(first.digest)}",
        "Give the same data to go on with it, or another --workdir, or "
        "--allow_changes.",
    )
    check_changes(changes, allowed, refusal, console)
