"""Scenarios besides saving: files and a manifest are replaced, a model exported."""

import hashlib
import json
import pathlib

from fault_scenarios import (
    CONFIG,
    SCENARIOS,
    Actions,
    Expect,
    GoingOn,
    bytes_below,
    whole,
)

from leo_tf.export.exporter import export_model
from leo_tf.export.version_directory import version_path, whole_directory
from leo_tf.methods.registry import build
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import RunDirectory

_D = 7
_OTHER_CONFIG = CONFIG.replace(num_steps=7)


class Replacing:
    """config.json and results.json are there and get new contents."""

    def prepare(self, workdir: pathlib.Path) -> None:
        GoingOn([10], best=10, improves=False).prepare(workdir)
        RunDirectory(workdir).write_json("results.json", {"accuracy": 0.25})

    def actions(self, directory: RunDirectory) -> Actions:
        yield "config", lambda: directory.write_config(_OTHER_CONFIG)
        results = {"accuracy": 0.5}
        yield "results", lambda: directory.write_json("results.json", results)

    def check(self, workdir, before: pathlib.Path, done: set, expect: Expect) -> None:
        directory, new = RunDirectory(workdir), workdir.with_name("new")
        config = directory.config()
        allowed = [_OTHER_CONFIG] if "config" in done else [CONFIG, _OTHER_CONFIG]
        expect("replaced", config in allowed, "config.json")
        new.mkdir()
        RunDirectory(new).write_json("results.json", {"accuracy": 0.5})
        contents = [(new / "results.json").read_bytes()]
        if "results" not in done:
            contents.append((before / "results.json").read_bytes())
        found = (workdir / "results.json").read_bytes()
        expect("replaced", found in contents, found)
        kept = bytes_below(workdir / "checkpoints") == bytes_below(
            before / "checkpoints"
        )
        expect("earlier", kept, "checkpoints")
        with directory.for_training(CONFIG):
            directory.write_config(CONFIG)
        expect("next", directory.config() == CONFIG, "config.json")


class Annotating:
    """Step 20 is validated only now: its manifest is replaced, and it is the best."""

    def prepare(self, workdir: pathlib.Path) -> None:
        GoingOn([10, 20], best=10, improves=False).prepare(workdir)

    def actions(self, directory: RunDirectory) -> Actions:
        checkpoints = Checkpoints(directory.path)
        stopped = checkpoints.load(20)
        facts = {"of": 20, "validated": True}
        yield "annotate", lambda: checkpoints.annotate(stopped, facts)
        yield "mark_best", lambda: checkpoints.mark_best(20)
        yield "prune", checkpoints.prune

    def check(self, workdir, before: pathlib.Path, done: set, expect: Expect) -> None:
        checkpoints, passed_over = Checkpoints(workdir), []

        def newest():
            return checkpoints.newest(passed_over.append)

        kept, found = whole(newest, {20})
        expect("newest", kept and not passed_over, [found, *passed_over])
        validated = newest().manifest.get("validated")
        allowed = [True] if "annotate" in done else [True, None]
        expect("replaced", validated in allowed, validated)
        allowed = {20} if "mark_best" in done else {10, 20}
        expect("best", *whole(checkpoints.best, allowed))
        earlier = bytes_below(workdir / "checkpoints/step-00000010")
        same = earlier == bytes_below(before / "checkpoints/step-00000010")
        expect("earlier", same, "step 10")
        with RunDirectory(workdir).for_training(CONFIG):
            checkpoints.annotate(newest(), {"of": 20, "validated": "again"})
        expect("next", newest().manifest["validated"] == "again", "annotate")


class Exporting:
    """Version 1 is there; the best checkpoint is exported as version 2."""

    def prepare(self, workdir: pathlib.Path) -> None:
        learner = build(CONFIG, _D)
        variables = {v.path: v.value for v in learner.trainable_variables}
        checkpoints = Checkpoints(workdir)
        with RunDirectory(workdir).for_training(CONFIG) as directory:
            directory.write_config(CONFIG)
            facts = {"of": 10, "data": {}, "embedding_size": _D, "jit": False}
            checkpoints.save(10, variables, facts)
            checkpoints.mark_best(10)
        _export(workdir)
        (workdir / "out/notes.txt").write_text("not ours")

    def actions(self, directory: RunDirectory) -> Actions:
        yield "export", lambda: _export(directory.path)

    def check(self, workdir, before: pathlib.Path, done: set, expect: Expect) -> None:
        out = workdir / "out"
        versions = {path.name for path in out.iterdir() if path.name.isdecimal()}
        expected = [{"1", "2"}] if "export" in done else [{"1"}, {"1", "2"}]
        expect("newest", versions in expected, versions)
        for version in versions:
            expect("newest", *_is_whole(out / version))
        for name in ("out/1", "checkpoints", "best"):
            same = bytes_below(workdir / name) == bytes_below(before / name)
            expect("earlier", same, name)
        notes = out / "notes.txt"
        kept = notes.is_file() and notes.read_text() == "not ours"
        expect("foreign", kept, notes.name)
        path = version_path(out)
        with whole_directory(path) as unfinished:
            (unfinished / "file").write_text("another version")
        expect("next", path.name == str(len(versions) + 1), path.name)


def _export(workdir: pathlib.Path):
    export_model(workdir, workdir / "out")


def _is_whole(version: pathlib.Path) -> tuple[bool, str]:
    """Tells whether its files are those of export.json, each with its digest."""
    contents = bytes_below(version)
    try:
        expected = json.loads(contents.pop("export.json"))["files"]
        contents.pop("README.md")  # for people to edit
    except (KeyError, ValueError) as error:
        return False, f"{version}: {error!r}"
    found = {n: hashlib.sha256(data).hexdigest() for n, data in contents.items()}
    return found == expected and "saved_model.pb" in found, f"{version}: {found}"


ALL_SCENARIOS = {
    **SCENARIOS,
    "replacing files": Replacing(),
    "a validation after a stop": Annotating(),
    "exporting": Exporting(),
}
