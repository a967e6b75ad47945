"""Tests that an installed wheel lives beside a project with folders of our names.

The editable install of a checkout hides what is wrong here, so the wheel is installed,
into an environment of its own that borrows the heavy packages of the running one.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

pytestmark = pytest.mark.long

ROOT = pathlib.Path(__file__).parents[1]
BUILT_FROM = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "run_leo.py")
BUILT_FROM += ("leo_tf", "configs", "data_pipeline", "tests", "benchmarks", "examples")
# Where the checkout has what the wheel has in leo_tf/.
FOLDERS = {"leo_tf": "leo_tf"}
FOLDERS |= {name: f"leo_tf/{name}" for name in ("configs", "data_pipeline")}

# Of a user's project: our names, and the commonest of all.
PROJECT = {
    "configs/mine.py": "NAME = 'configs of theirs'",
    "data_pipeline/__init__.py": "NAME = 'data_pipeline of theirs'",
    "tests/__init__.py": "NAME = 'tests of theirs'",
    "utils.py": "NAME = 'utils of theirs'",
}
# Arguments: a file of features, then the flags of a training; without, it imports.
SESSION = """
import pathlib, sys

import numpy as np

import data_pipeline, tests, utils
from configs import mine

for module in (mine, data_pipeline, tests, utils):
    assert module.NAME.endswith(" of theirs"), module
    assert pathlib.Path(module.__file__).is_relative_to(pathlib.Path.cwd()), module

import leo_tf
from leo_tf.configs.presets import PRESETS
from leo_tf.data_pipeline import feature_files

features, *train = sys.argv[1:]
assert feature_files.load(features).num_classes == 7
assert list(leo_tf.__path__) == [str(pathlib.Path(leo_tf.__file__).parent)]
finders = [f"{finder!r} {type(finder)!r}" for finder in sys.meta_path]
assert "editable" not in " ".join(finders).lower(), finders
if train:
    from leo_tf.cli.main import main
    from leo_tf.model.leo import LEO
    from leo_tf.serving import Classifier
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)  # sooner than graphs of a few steps
    assert LEO(PRESETS["mini_1shot"].config().model).config.num_latents == 64
    assert main(["leo-tf", "--workdir=run", *train]) == 0
    export = ["leo-tf", "--mode=export", "--workdir=run", "--export_dir=exported"]
    assert main(export) == 0
    with np.load(features) as file:
        features, labels = file["embeddings"][:24], file["labels"][:24]
    client = Classifier("exported").fit(features[::2], labels[::2])
    right = client.predict(features[1::2]) == labels[1::2]
    assert right.mean() > 0.5, right

for name, module in list(sys.modules.items()):
    if name.split(".")[0] == "leo_tf":
        assert pathlib.Path(module.__file__).is_relative_to(sys.prefix), module
"""


def run(*command, **options) -> str:
    """Returns the output of a command, and fails with all of it if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """The wheel of this checkout, built from a copy: no earlier build is in it."""
    place = tmp_path_factory.mktemp("wheel")
    checkout, ignore = place / "checkout", shutil.ignore_patterns("__pycache__")
    checkout.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, checkout / name)
    # setuptools and wheel are of the extra `test`: no network is needed.
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, *build, f"--wheel-dir={place}", str(checkout))
    [wheel] = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> pathlib.Path:
    """The bin/ of an environment with the wheel; all else is the running one's."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = pathlib.Path(run(python, "-c", where).strip())
    # The .pth files in there are not read: that of an editable install is none of ours.
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    # But for that of setuptools, by which Python 3.12 and later find `distutils`.
    borrowed = [*borrowed, "import _distutils_hack; _distutils_hack.add_shim()"]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    # The running environment's leo-tf is seen by pip too, and left alone.
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    run(*pip, "--ignore-installed", "--no-deps", "--no-index", str(wheel))
    return python.parent


CONFIGS = "configs/__init__.py"


@pytest.fixture(params=[CONFIGS, f"no {CONFIGS}"])
def project(request, tmp_path) -> dict:
    """Options to run something as in a user's project of either kind."""
    files = dict(PROJECT)
    if not request.param.startswith("no "):
        files[request.param] = ""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    # As notebooks and many test runners do: what is here comes first.
    own = {"PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return {"cwd": tmp_path, "env": {**os.environ, **own}}


def test_the_wheel_has_one_name_every_module_and_no_test(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert len(roots) == 2 and roots - {"leo_tf"} == {
        next(root for root in roots if root.endswith(".dist-info"))
    }
    modules = {
        f"{inside}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert len(modules) > 90
    pages = ROOT / "leo_tf" / "serving" / "pages"
    shown = [pages / "openapi.json", *(pages / "static").iterdir()]
    expected = {*modules, "leo_tf/py.typed"}
    expected |= {file.relative_to(ROOT).as_posix() for file in shown}
    assert {name for name in names if name.startswith("leo_tf/")} == expected


def test_beside_folders_of_our_names_both_theirs_and_ours_are_imported(
    project, installed, tiny_data
):
    assert run(installed / "leo-tf", "--version", **project).startswith("leo-tf ")
    features = str(tiny_data / "tiny" / "test.npz")
    run(installed / "python", "-c", SESSION, features, **project)


@pytest.mark.parametrize("project", [f"no {CONFIGS}"], indirect=True)
def test_beside_folders_of_our_names_ours_trains_exports_and_answers(
    project, installed, small_flags, tiny_data
):
    flags = [*small_flags, "--num_steps=5", "--method=generator"]
    features = str(tiny_data / "tiny" / "test.npz")
    told = run(installed / "python", "-c", SESSION, features, *flags, **project)
    assert "generator only" in told and "Run directory: run" in told
    assert "Export of step 5: exported/1" in told
