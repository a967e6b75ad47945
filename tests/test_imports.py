"""Imports go one way, and each outside package stays where it belongs."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("configs", "data_pipeline", "leo_tf", "benchmarks")

# Every module, in layers: it imports from earlier lines only. A new file gets its place
# here when it is written.
LAYERS = """
configs
configs.errors
configs.rules
configs.groups
configs.schema
configs.presets
configs.option
configs.options
configs.flag_files configs.help_page configs.modes
configs.flags

data_pipeline.episode data_pipeline.hog data_pipeline.whole_file
data_pipeline.array_cache data_pipeline.tfrecord_lengths
data_pipeline.embeddings data_pipeline.glyph_drawing data_pipeline.input_file
data_pipeline.keys data_pipeline.npz data_pipeline.pickle_values
data_pipeline.pickle_arrays data_pipeline.sampler
data_pipeline.pickle_result data_pipeline.pipeline
data_pipeline.pickle_opcodes
data_pipeline.release_pickle data_pipeline.tfrecord
data_pipeline.formats
data_pipeline.glyphs data_pipeline.splits
data_pipeline

leo_tf
leo_tf.serving_inputs leo_tf.serving_models
leo_tf.serving leo_tf.server_json leo_tf.server_versions
leo_tf.server_openapi
leo_tf.server_app
leo_tf.adaptation leo_tf.latent leo_tf.layers leo_tf.learner leo_tf.losses leo_tf.noise
leo_tf.monitor_tags leo_tf.profiling leo_tf.request_checks leo_tf.step_metrics
leo_tf.version_directory
leo_tf.baselines leo_tf.baselines.newton
leo_tf.baselines.linear leo_tf.baselines.maml leo_tf.baselines.protonet leo_tf.model
leo_tf.calibration leo_tf.meta_step leo_tf.uneven_support
leo_tf.signatures
leo_tf.export_tflite leo_tf.query_scores leo_tf.sampling
leo_tf.evaluation leo_tf.monitoring leo_tf.progress leo_tf.saved_variables
leo_tf.changes
leo_tf.methods leo_tf.signals leo_tf.json_file
leo_tf.choices
leo_tf.best_pointer leo_tf.checkpoint_manifest
leo_tf.checkpoints leo_tf.server
leo_tf.history
leo_tf.monitor_training
leo_tf.cluster
leo_tf.workers
leo_tf.distribute
leo_tf.datasets leo_tf.monitor_projector leo_tf.pictures leo_tf.report
leo_tf.run_directory leo_tf.trainer
leo_tf.export_manifest leo_tf.monitor_facts leo_tf.monitor_images leo_tf.run_evaluation
leo_tf.monitor_validation
leo_tf.export leo_tf.follower
leo_tf.training leo_tf.comparison_table leo_tf.reproduction_table leo_tf.method_settings
leo_tf.comparison_pictures leo_tf.several_runs leo_tf.search_table
leo_tf.compare leo_tf.reproduce leo_tf.search
leo_tf.experiment
leo_tf.command_line
run_leo
benchmarks.soak benchmarks.episode_supply benchmarks.serving_load
benchmarks.evaluation_speed benchmarks.growth benchmarks.meta_step
benchmarks.startup
benchmarks.in_turn benchmarks.peers.leo_jax benchmarks.peers.leo_torch
benchmarks.monitoring_cost benchmarks.peers.contestants
benchmarks.peers_speed
"""
PLACE = {
    module: number
    for number, line in enumerate(LAYERS.splitlines())
    for module in line.split()
}


def find_modules() -> dict[str, pathlib.Path]:
    """Name -> file of every module that is installed or run."""
    files = [ROOT / "run_leo.py"]
    for package in PACKAGES:
        files += (ROOT / package).rglob("*.py")
    return {module_name(file): file for file in files}


def module_name(file: pathlib.Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = find_modules()


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


def parse(name: str) -> ast.AST:
    return ast.parse(MODULES[name].read_text("utf-8"))


def test_every_module_has_its_place_and_every_place_its_module():
    assert set(PLACE) == set(MODULES)


def arrows_up(name: str, tree: ast.AST) -> list[str]:
    """Imports of our own modules that are not on an earlier line of the table."""
    return [
        f"{name}, line {line}, imports {imported}"
        for imported, line in imports_of(tree)
        if imported.split(".")[0] in (*PACKAGES, "run_leo", "tests")
        and not PLACE.get(imported, len(PLACE)) < PLACE[name]
    ]


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
        ("configs.groups", "from configs import presets"),
        ("configs.errors", "import configs.rules"),
        ("data_pipeline.sampler", "def f():\n    from leo_tf.model import LEO"),
        ("leo_tf.losses", "from leo_tf import model"),
        ("leo_tf.trainer", "from leo_tf.experiment import run"),
        ("leo_tf.checkpoints", "import leo_tf.checkpoints"),
        ("leo_tf.model", "import leo_tf.unheard_of"),
        ("leo_tf.model", "import tests.goldens"),
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
    assert users_of("tensorflow_probability") == {"leo_tf.latent"}


def test_only_flags_reads_flags():
    assert users_of("absl") == {"configs.flags"}


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
    picklers = "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"
    assert users_of(*picklers, "marshal") == set()
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


def test_every_package_is_installed():
    text = (ROOT / "setup.py").read_text()
    packages = {name for name in MODULES if MODULES[name].name == "__init__.py"}
    for package in packages:
        assert f'"{package}"' in text, package


@pytest.mark.parametrize(
    "name", ["configs.flags", "data_pipeline", "data_pipeline.glyphs", "run_leo"]
)
def test_what_must_start_quickly_does_not_import_tensorflow(name):
    code = f"import sys, {name}\nprint('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
