"""Tables of text: one object, printed on a terminal and written as Markdown."""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import rich.table
from rich import box
from rich.console import Console
from rich.markup import escape
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

    def __rich__(self) -> rich.table.Table:
        """Returns the table for `rich` to print."""
        drawn = rich.table.Table(box=box.SIMPLE_HEAVY, title=escape(self.title) or None)
        for column in self.columns:
            is_left = column in self.left
            drawn.add_column(Text(column), justify="left" if is_left else "right")
        for number, row in enumerate(self.rows):
            if number in self.sections:
                drawn.add_section()
            drawn.add_row(*map(Text, row))
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


def _line(cells: Iterable[str]) -> str:
    texts = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(texts)} |"
