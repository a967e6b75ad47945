"""Tables of text: one object, printed on a terminal and written as Markdown."""

import dataclasses
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import rich.table
from rich import box
from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.measure import Measurement
from rich.text import Text

_FILE_WIDTH = 200  # for output that is no terminal; rich would break titles at 80


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. Cells are plain text without markup."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]  # the last cells may be missing
    left: tuple[str, ...] = ()  # columns aligned to the left; the others are numbers
    title: str = ""
    sections: tuple[int, ...] = ()  # rows that begin a section, not in Markdown

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[rich.table.Table]:
        """Yields the table for `rich` to print, a narrower one if that fits better."""
        wide, narrow = self._drawn(), self._drawn(narrow=True)
        anything = options.update(max_width=_FILE_WIDTH)
        fits = Measurement.get(console, anything, wide).maximum <= options.max_width
        least = Measurement.get(console, anything, narrow).minimum
        yield wide if fits or least > options.max_width else narrow

    def _drawn(self, narrow: bool = False) -> rich.table.Table:
        drawn = rich.table.Table(
            box=box.SIMPLE_HEAVY,
            title=escape(self.title) or None,
            pad_edge=not narrow,
            collapse_padding=narrow,
        )
        for number, column in enumerate(self.columns):
            is_left = column in self.left
            if narrow and not is_left:
                # As narrow as its numbers, so that the text beside has room.
                cells = [_broken(row[number]) for row in self.rows if number < len(row)]
                lines = [*"\n".join(cells).split("\n"), *column.split()]
                column = "\n".join(textwrap.wrap(column, max(map(len, lines))))
            justify: Any = "left" if is_left else "right"
            alone = narrow and not is_left
            drawn.add_column(Text(column), justify=justify, no_wrap=alone)
        for number, row in enumerate(self.rows):
            if number in self.sections:
                drawn.add_section()
            drawn.add_row(*(Text(_broken(cell) if narrow else cell) for cell in row))
        return drawn

    def markdown(self) -> str:
        """Returns the table in Markdown, with the title as a heading."""
        rules = ["---" if column in self.left else "---:" for column in self.columns]
        lines = [_line(self.columns), f"|{'|'.join(rules)}|", *map(_line, self.rows)]
        heading = f"# {self.title}\n\n" if self.title else ""
        return heading + "\n".join(lines)


def document(parts: Iterable[str | Table]) -> str:
    """Returns paragraphs and tables in Markdown, without empty ones."""
    texts = (part if isinstance(part, str) else part.markdown() for part in parts)
    return "\n\n".join(filter(None, texts)) + "\n"


def show(parts: Iterable[str | Table]) -> None:
    """Prints texts, without breaking lines, and tables to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH
    for part in parts:
        (print if isinstance(part, str) else console.print)(part)


def _broken(cell: str) -> str:
    """Returns a cell with its remark on the next line."""
    return cell.replace(" (", "\n(")


def _line(cells: Iterable[str]) -> str:
    texts = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(texts)} |"
