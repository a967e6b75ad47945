"""Tests that setup.py, the oldest versions, the workflow and the Makefile agree."""

import pathlib
import re
import runpy
import subprocess

import pytest
import setuptools

import leo_tf

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def package():
    """Returns the arguments of `setuptools.setup`."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: found.update(arguments))
        runpy.run_path(str(ROOT / "setup.py"))
    return found


def test_oldest_versions_are_the_lower_bounds_of_setup_py(package):
    wanted = [*package["install_requires"]]
    for extra in ("serve", "sklearn", "arrow", "cluster", "docs", "test"):
        wanted += package["extras_require"][extra]
    wanted = [each for each in wanted if "python_version" not in each]  # above 3.10
    bounds = {
        re.sub(r"\[.*\]", "", name): bound
        for name, bound in (re.split(">=|,", r)[:2] for r in wanted if ">=" in r)
    }
    unbound = {r for r in wanted if ">=" not in r}
    assert unbound == {"wheel"}
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert oldest.keys() == bounds.keys()
    for name, version in oldest.items():
        assert re.fullmatch(rf"{re.escape(bounds[name])}(\.0)*", version), name


def test_the_description_has_no_link_that_leads_nowhere_from_the_index(package):
    text = package["long_description"]
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    assert "https://arxiv.org/abs/1807.05960" in text and "docs/results.md" in text


def test_the_linter_has_one_version_wherever_it_is_named(package):
    files = (ROOT / "Makefile", ROOT / ".pre-commit-config.yaml")
    named = [*package["extras_require"]["dev"], *(f.read_text() for f in files)]
    pattern = r"ruff==([\d.]+)|ruff-pre-commit\s+rev: v([\d.]+)"
    found = [a or b for text in named for a, b in re.findall(pattern, text)]
    assert len(found) == 3 and len(set(found)) == 1, found


def test_the_citation_has_the_version_of_the_package(package):
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {leo_tf.__version__}\n" in citation
    assert package["version"] == leo_tf.__version__


def test_the_workflow_tests_every_python_that_may_install(package):
    first, last = map(int, re.findall(r"3\.(\d+)", package["python_requires"]))
    pythons = [f"3.{minor}" for minor in range(first, last)]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    [matrix] = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r"[\d.]+", matrix) == pythons
    named = [c.rpartition(" ")[2] for c in package["classifiers"] if "Python" in c]
    assert named == pythons


def test_make_help_lists_every_target_and_the_workflow_names_only_those():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    # Of a make that runs these tests it would print the directory, too.
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == targets
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    used = set(re.findall(r"run: make ([\w-]+)", workflow))
    tested = {name for name in targets if name.startswith("test")}
    assert used == {*tested, "lint", "types", "docs", "wheel"}
