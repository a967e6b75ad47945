"""Tables: one object on a terminal and in Markdown."""

import dataclasses
import io

import pytest
from rich.console import Console

from leo_tf.reports.table import Table, show

TABLE = Table(
    ("method", "accuracy", "note"),
    (("LEO", "61.5", "a"), ("ridge", "7.25", "longer"), ("difference", "+54.25")),
    left=("method", "note"),
    title="tiny",
    sections=(2,),
)


def test_markdown_has_the_title_alignments_and_every_cell_in_its_column():
    assert TABLE.markdown().splitlines() == [
        "# tiny",
        "",
        "| method | accuracy | note |",
        "|---|---:|---|",
        "| LEO | 61.5 | a |",
        "| ridge | 7.25 | longer |",
        "| difference | +54.25 |",
    ]


def test_a_terminal_has_alignments_a_section_and_every_cell_in_its_column(capsys):
    show([dataclasses.replace(TABLE, title="")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "",
        "  method       accuracy   note",
        " ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
        "  LEO              61.5   a",
        "  ridge            7.25   longer",
        "",
        "  difference     +54.25",
        "",
    ]


def test_rich_prints_a_table_with_its_title():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(TABLE)
    assert "tiny" in console.export_text().splitlines()[0]


def test_nothing_in_a_cell_is_markup(capsys):
    show([Table(("[b]a[/b]",), (("[red]x[/red] :smile: a|b",),))])
    printed = capsys.readouterr().out
    assert "[b]a[/b]" in printed and "[red]x[/red] :smile: a|b" in printed
    assert Table(("a",), (("x|y",),)).markdown().endswith("| x\\|y |")


def test_texts_and_tables_are_printed_in_their_order_and_long_lines_are_not_broken(
    capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    long = "--setting=[1] " * 20
    show([long, Table(("column",), (("cell",),)), "end"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == long and lines[-1] == "end"
    assert [line.strip() for line in lines[1:-1] if line.strip(" ━")] == [
        "column",
        "cell",
    ]


def test_a_table_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE.title = "other"


def test_in_a_file_a_wide_table_is_not_cut(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    cells = [f"a title of thirty letters, no. {i}" for i in range(4)]
    show([Table(tuple("abcd"), [tuple(cells)])])
    assert "   ".join(cells) in capsys.readouterr().out


def test_on_a_narrow_terminal_no_word_is_cut(monkeypatch, capsys):
    columns = "method", "validation", "parameters", "best step", "steps", "ms to adapt"
    row = "Conditional generator + tuning, lda", "92.52", "409,601", "12,500"
    table = Table(columns, [(*row, "100,000 (diverged)", "35.72")] * 2, ("method",))
    monkeypatch.setenv("COLUMNS", "64")
    show([table])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 64 and "…" not in printed
    words = " ".join([*columns, *row, "100,000 (diverged)", "35.72"]).split()
    assert {*words} <= {*printed.split()}


@pytest.mark.parametrize("width", ["30", "40", "50"])
def test_where_nothing_fits_a_cut_is_marked(monkeypatch, capsys, width):
    columns = "method", "validation", "accuracy", "best step", "steps", "ms to adapt"
    row = "ridge", "92.52", "92.52 ± 0.12", "12,500", "9", "35.72"
    monkeypatch.setenv("COLUMNS", width)
    show([Table(columns, [row], ("method",))])
    words = capsys.readouterr().out.split()
    whole = {word for cell in (*columns, *row) for word in cell.split()}
    cut = {word for word in words if word not in whole and "━" not in word}
    assert cut and all(word.endswith("…") for word in cut)
