"""Public functions say their types; `make types` lets mypy see that they are right."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("leo_tf", "configs", "data_pipeline")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def untyped(body: list[ast.stmt], owner: str = "") -> list[str]:
    """Parts of public functions and methods in `body` that have no type."""
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            found += untyped(node.body, f"{node.name}.")
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not is_public(node.name):
            continue
        names, place = node.args, f"{owner}{node.name}, line {node.lineno}"
        decorators = {each.id for each in node.decorator_list if hasattr(each, "id")}
        first = bool(owner) and "staticmethod" not in decorators  # self or cls
        arguments = [*names.posonlyargs, *names.args][first:] + names.kwonlyargs
        arguments += [each for each in (names.vararg, names.kwarg) if each]
        found += [f"{place}: {a.arg}" for a in arguments if a.annotation is None]
        if node.returns is None and node.name != "__init__":
            found.append(f"{place}: what it returns")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_say_their_types(path):
    assert untyped(ast.parse(path.read_text("utf-8")).body) == []


def test_what_says_no_type_is_seen():
    code = """
def f(a, b: int = 0, *c, d, **e): ...
def _f(a): ...
async def g() -> int: ...
class A:
    def __init__(self): ...
    def h(self, x) -> int: ...
    @staticmethod
    def s(y): ...
    def _h(self, z): ...
class _B:
    def i(self, a): ...
"""
    seen = [line.split(": ")[1] for line in untyped(ast.parse(code).body)]
    assert seen == [*"adce", "what it returns", *"xy", "what it returns"]


def test_no_type_is_ignored_without_its_reason():
    ignores = [
        f"{path.relative_to(ROOT)}, line {number}"
        for path in FILES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if "type: ignore" in line and not line.split("type: ignore")[1].count("#")
    ]
    assert ignores == []
