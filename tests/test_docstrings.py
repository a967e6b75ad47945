"""Docstrings begin with a verb or a name, never with a clause without a head."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
HEADLESS = re.compile(
    r"(What|Whether|How|Where|Which|Who|Why|As|Of|That|Those|Sees that|So that)\b"
)


def docstrings(path: pathlib.Path):
    """Yields (line, first line) of each docstring of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text.splitlines()[0]


def test_docstrings_begin_with_a_verb_or_a_name():
    found = []
    tops = ("benchmarks", "configs", "data_pipeline", "examples", "leo_tf", "tests")
    for path in sorted(p for top in tops for p in (ROOT / top).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        lines = docstrings(path)
        found += [f"{where}:{n}: {t}" for n, t in lines if HEADLESS.match(t)]
    assert not found, "\n".join(found)
