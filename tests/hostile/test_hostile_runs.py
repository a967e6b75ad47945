"""Run directories that attack: one line and exit status 3 or 4, and nothing else."""

import hashlib
import json
import os
import pathlib
import shutil

import pytest
from hostile_files import damages, truncations
from saved_runs import listing

pytestmark = pytest.mark.long

_ALLOWED = 1 << 29  # of which TensorFlow's own start takes most
_GIBIBYTE = 1 << 30
_STEP = "checkpoints/step-00000012"
# A manifest of 32 MiB takes the parser some 20 times that; these are smaller.
_MOST_PEAK = 200 << 20
SLOW = pytest.mark.slow


@pytest.fixture
def outcome(tensorflow_reader, trained_copy, small_flags):
    """Function: exit status of a mode of the program on the (hostile) copy of a run."""

    def outcome(mode: str) -> str:
        flags = [f"--mode={mode}", f"--workdir={trained_copy}", "--quiet"]
        flags += small_flags if mode == "train" else []
        ended, said, peak = tensorflow_reader.read("program", flags, _ALLOWED, 120)
        assert ended in ("read", "refused 3", "refused 4"), (ended, said)
        assert ended == "read" or peak < _MOST_PEAK, (ended, said)
        [*told, last] = said.splitlines() or [""]
        assert ended == "read" or last.startswith("error: "), said
        assert all(line.startswith("skipped: ") for line in told) or ended == "read"
        return ended

    return outcome


def _sparse(path: pathlib.Path) -> None:
    """A file of gigabytes that takes no space."""
    path.write_bytes(b"{")
    os.truncate(path, 4 * _GIBIBYTE)


def _pipe(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(target: str):
    def replace(path):
        path.unlink()
        path.symlink_to(target)

    return replace


def _directory(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


def _content(content: bytes):
    return lambda path: path.write_bytes(content)


DEVICES = {
    "gigabytes": _sparse,
    "a pipe": _pipe,
    "a device": _link("/dev/zero"),
    "a link to itself": _link("config.json"),
    "a directory": _directory,
}
TEXTS = {
    "nested lists": _content(b"[" * 500_000),
    "nested objects": _content(b'{"run":' * 100_000),
    "a long number": _content(b'{"run": {"seed": ' + b"9" * 500_000 + b"}}"),
    "a large number": _content(b'{"run": {"num_steps": 1e999}}'),
    "NaN": _content(b'{"optimizer": {"outer_lr": NaN}}'),
    "zeros": _content(bytes(1000)),
    "no UTF-8": _content(b"\xff\xfe{\0}\0"),
    "half a pair": _content(b'{"preset": "\\ud800"}'),
    "a control character": _content(b'{"preset": "\\u001b[2J"}'),
    "a list": _content(b"[]"),
    "a number": _content(b"7"),
    "null": _content(b"null"),
    "unknown": _content(b'{"__class__": "os.system", "run": {}}'),
    "a pickle": _content(b"cos\nsystem\n(S'true'\ntR."),
}


_QUICK = ("gigabytes", "a pipe", "a device", "nested lists", "NaN", "a pickle")
CASES = [
    pytest.param(name, marks=() if name in _QUICK else SLOW)
    for name in (*DEVICES, *TEXTS)
]


@pytest.mark.parametrize("damage", CASES)
def test_a_hostile_config_is_refused(outcome, trained_copy, damage):
    {**DEVICES, **TEXTS}[damage](trained_copy / "config.json")
    assert outcome("evaluate") == "refused 3"
    assert outcome("train") == "refused 3"


@pytest.mark.parametrize("damage", CASES)
def test_a_hostile_manifest_is_refused(outcome, trained_copy, damage):
    best = json.loads((trained_copy / "best/checkpoint.json").read_text())["directory"]
    {**DEVICES, **TEXTS}[damage](trained_copy / "checkpoints" / best / "manifest.json")
    assert outcome("evaluate") == "refused 4"


@pytest.fixture(scope="module")
def plain(train, quick_jobs, tmp_path_factory) -> pathlib.Path:
    """A run of nearest centroid, which is exported quickly: not to be changed."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    assert train(workdir, "--method=centroid", "--quiet") == 0
    return workdir


@pytest.mark.parametrize("damage", CASES)
def test_hostile_results_are_refused_when_the_run_is_exported(
    tensorflow_reader, plain, tmp_path, damage
):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(plain, run)
    {**DEVICES, **TEXTS}[damage](run / "results.json")
    flags = ["--mode=export", f"--workdir={run}", f"--export_dir={out}"]
    ended, said, _ = tensorflow_reader.read("program", flags, _ALLOWED, 120)
    assert ended == "refused 3" and str(run / "results.json") in said
    assert not list(out.glob("*"))


@pytest.mark.parametrize("damage", CASES)
def test_a_hostile_pointer_is_refused(outcome, trained_copy, damage):
    {**DEVICES, **TEXTS}[damage](trained_copy / "best/checkpoint.json")
    assert outcome("evaluate") == "refused 4"


@pytest.fixture
def only_newest(trained_copy) -> pathlib.Path:
    """The newest checkpoint, and no other that could stand in for it."""
    for path in (trained_copy / "checkpoints").iterdir():
        if path.name != pathlib.Path(_STEP).name:
            shutil.rmtree(path)
    pointer = {"step": 12, "directory": pathlib.Path(_STEP).name}
    (trained_copy / "best/checkpoint.json").write_text(json.dumps(pointer))
    return trained_copy / _STEP


def _changed(path: pathlib.Path, change) -> None:
    """Changes manifest.json by a function of the dictionary."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def _set(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(manifest):
        for key in keys:
            manifest = manifest[key]
        manifest[last] = value

    return change


SHA = hashlib.sha256(b"").hexdigest()
MANIFESTS = {
    "a file elsewhere": _set("files", "../../config.json", {"size": 1, "sha256": SHA}),
    "a device": _set("files", "/dev/zero", {"size": 1, "sha256": SHA}),
    "the directory": _set("files", ".", {"size": 1, "sha256": SHA}),
    "files in a list": _set("files", ["variables.index"]),
    "a digest in a list": _set("files", "variables.index", [1]),
    "no files": _set("files", {}),
    "a NUL": _set("files", "a\0b", {}),
    "a step of text": _set("step", "12"),
    "a step of true": _set("step", True),
    "another format": _set("format", [1]),
    "no progress": lambda manifest: manifest.pop("progress"),
    "progress of text": _set("progress", "12"),
    "another step in progress": _set("progress", "step", 7),
    "a vast step in progress": _set("progress", "step", 10**30),
    "a history of numbers": _set("progress", "history", [1, 2]),
    "a history without steps": _set("progress", "history", [{"val_accuracy": 1}]),
    "an endless accuracy": _set("progress", "best_accuracy", 10**400),
    "a best step of text": _set("progress", "best_step", "12"),
    "sums in a list": _set("progress", "since_validation", "sums", [1]),
    "sums of text": _set("progress", "since_validation", "sums", {"loss": "x"}),
    "no data": lambda manifest: manifest.pop("data"),
    "data in a list": _set("data", ["train"]),
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_a_manifest_that_lies_is_refused_when_training_would_go_on(
    outcome, only_newest, change
):
    _changed(only_newest, MANIFESTS[change])
    before = listing(only_newest.parent)
    assert outcome("train") == "refused 4"
    assert listing(only_newest.parent) == before, "nothing is lost"


def _forge(path: pathlib.Path, name: str, content: bytes) -> None:
    """Replaces a file of a checkpoint, its digest in the manifest too."""
    (path / name).write_bytes(content)
    digest = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _changed(path, _set("files", name, digest))


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("count", [3, pytest.param(60, marks=SLOW)])
def test_damaged_variables_with_a_forged_digest_do_not_end_the_process(
    outcome, only_newest, name, count
):
    content = (only_newest / name).read_bytes()
    cut = truncations(content, max(1, len(content) // count))
    refused = 0
    for damaged in [*cut, *damages(content, count, name)]:
        _forge(only_newest, name, damaged)
        refused += outcome("evaluate") == "refused 4"
    # What hits the optimizer's slots is not read here.
    assert refused > count // 2


def test_a_good_run_is_evaluated_by_the_same_road(outcome):
    assert outcome("evaluate") == "read"
    assert outcome("train") == "read"
