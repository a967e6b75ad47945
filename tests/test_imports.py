"""Imports go one way, and each outside package stays where it belongs."""

import ast
import collections
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# What may import what: each from itself and from those before it. Names on one line
# do not import each other.
ORDER = (
    "leo_tf",
    "errors",
    "files console environment",
    "configs",
    "data_pipeline",
    "model",
    "methods",
    "evaluation",
    "runs reports",
    "monitoring embedding",
    "export",
    "training",
    "experiments",
    "cli",
    "run_leo __main__ benchmarks examples",
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names.split()}
# Imported as leo_tf.configs and leo_tf.data_pipeline.
TOP_FOLDERS = ("configs", "data_pipeline")
# An export stands alone: nothing that made it is needed to serve it.
SERVING = {"leo_tf", "errors", "console", "serving"}


def module_name(file: pathlib.Path) -> str:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in TOP_FOLDERS:
        parts.insert(0, "leo_tf")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_modules() -> dict[str, pathlib.Path]:
    """Name -> file of every module that is installed or run."""
    files = [ROOT / "run_leo.py"]
    for folder in (*TOP_FOLDERS, "leo_tf", "benchmarks", "examples"):
        files += (ROOT / folder).rglob("*.py")
    return {module_name(file): file for file in files}


MODULES = find_modules()
OURS = {name.split(".")[0] for name in MODULES} | {*TOP_FOLDERS, "tests"}


def room(module: str) -> str:
    """The package or module just below leo_tf, or what else a module is part of."""
    parts = module.split(".")
    return parts[1] if parts[0] == "leo_tf" and len(parts) > 1 else parts[0]


@functools.cache
def imports_of(tree: ast.AST) -> list[tuple[str, int]]:
    """(module, line) of every import, at the top or inside a function.

    `from a import b` is an import of `a.b` if that is a module, else of `a`.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                name = f"{source}.{alias.name}"
                is_module = name in MODULES or name == "tensorflow.keras"
                found.append((name if is_module else source, node.lineno))
    return found


@functools.cache
def parse(name: str) -> ast.AST:
    return ast.parse(MODULES[name].read_text("utf-8"))


def test_every_package_has_its_place_in_the_order():
    assert {room(name) for name in MODULES} - {"serving"} <= set(LEVEL)


def arrows_up(name: str, tree: ast.AST) -> list[str]:
    """Imports of our own packages that are not earlier in the order."""
    mine, found = room(name), []
    for imported, line in imports_of(tree):
        theirs, top = room(imported), imported.split(".")[0]
        if top in TOP_FOLDERS:  # found so in a checkout only
            allowed = False
        elif top not in OURS or theirs == mine:
            continue
        elif mine == "serving":
            allowed = theirs in SERVING
        elif theirs == "serving":  # the last but the command line may use it
            allowed = LEVEL[mine] >= LEVEL["cli"] or mine == "leo_tf"
        elif mine == "leo_tf":  # its public names are loaded when asked for
            allowed = imported.startswith("leo_tf.")
        else:
            allowed = LEVEL.get(theirs, len(ORDER)) < LEVEL[mine]
        if not allowed:
            found.append(f"{name}, line {line}, imports {imported}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    assert arrows_up(name, parse(name)) == []


def test_imports_are_absolute():
    relative = [
        f"{name}, line {line}"
        for name in MODULES
        for imported, line in imports_of(parse(name))
        if imported.startswith(".")
    ]
    assert relative == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("leo_tf.configs.rules", "from leo_tf.data_pipeline import sampler"),
        ("leo_tf.errors", "import leo_tf.files"),
        ("leo_tf.data_pipeline.sampler", "def f():\n    from leo_tf.model import leo"),
        ("leo_tf.model.losses", "from leo_tf.methods.registry import METHODS"),
        ("leo_tf.training.trainer", "from leo_tf.experiments import train"),
        ("leo_tf.runs.checkpoints", "from leo_tf.reports import results"),
        ("leo_tf.experiments.train", "import leo_tf.cli.flags"),
        ("leo_tf.serving.server", "from leo_tf.configs import schema"),
        ("leo_tf.model.leo", "import leo_tf.unheard_of"),
        ("leo_tf.model.leo", "import configs.schema"),
        ("leo_tf.configs.schema", "import configs.rules"),
        ("leo_tf.model.leo", "import tests.goldens"),
    ],
)
def test_an_arrow_the_other_way_is_seen(name, code):
    assert len(arrows_up(name, ast.parse(code))) == 1


def users_of(*packages: str) -> set[str]:
    """Modules that import one of these packages or something below them."""
    return {
        name
        for name in MODULES
        for imported, _ in imports_of(parse(name))
        if any(f"{imported}.".startswith(f"{package}.") for package in packages)
    }


def test_only_latent_imports_tensorflow_probability():
    assert users_of("tensorflow_probability") == {"leo_tf.model.latent"}


def test_only_flags_reads_flags():
    assert users_of("absl") == {"leo_tf.cli.flags"}


def test_nobody_uses_the_keras_of_tensorflow():
    assert users_of("tf_keras", "tensorflow.keras", "tensorflow.python") == set()
    attributes = [
        f"{name}, line {node.lineno}"
        for name in MODULES
        for node in ast.walk(parse(name))
        if isinstance(node, ast.Attribute)
        and node.attr == "keras"
        and isinstance(node.value, ast.Name)
        and node.value.id in ("tf", "tensorflow")
    ]
    assert attributes == []


def test_nobody_unpickles():
    picklers = "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve"
    assert users_of(*picklers, "marshal") == set()
    workers = "leo_tf.methods.query_aware.estimators"  # only its pool
    assert users_of("joblib") == {workers}
    assert "joblib import Parallel, delayed\n" in MODULES[workers].read_text("utf-8")
    allowing = [
        f"{name}, line {node.value.lineno}"
        for name in MODULES
        for node in ast.walk(parse(name))
        if isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert allowing == []


def test_nobody_checks_a_users_mistake_with_assert():
    asserts = [
        f"{name}, line {node.lineno}"
        for name in MODULES
        for node in ast.walk(parse(name))
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def test_no_module_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not {name for name in MODULES if name.split(".")[-1] in drawers}


def test_no_folder_holds_more_modules_than_one_can_keep_in_mind():
    folders = collections.Counter(
        file.parent
        for name, file in MODULES.items()
        if name.startswith("leo_tf") and file.name != "__init__.py"
    )
    assert max(folders.values()) <= 11


def test_no_module_repeats_the_name_of_its_folder():
    assert [
        name
        for name, file in MODULES.items()
        if name.startswith("leo_tf.") and file.stem.startswith(f"{file.parent.name}_")
    ] == []


@pytest.mark.parametrize(
    "name",
    [
        "leo_tf",
        "leo_tf.cli.flags",
        "leo_tf.data_pipeline.feature_files",
        "leo_tf.data_pipeline.glyphs.dataset",
        "run_leo",
    ],
)
def test_what_must_start_quickly_does_not_import_tensorflow(name):
    code = f"import sys, {name}\nprint('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr


def test_help_loads_neither_numpy_nor_rich():
    code = "import sys, leo_tf.cli.main\nprint({'numpy', 'rich'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr
