"""Scenarios of a run's writes, and what must be found after any fault.

Every scenario has `prepare`, what is there at first; `actions`, what is done while
faults are injected; `check`, in a fresh process afterwards. `expect` takes a promise,
whether it was kept, and what was found.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.errors import CheckpointError
from leo_tf.runs.checkpoints import Checkpoints
from leo_tf.runs.directory import RunDirectory
from leo_tf.runs.variables import restore_variables

# Exported sooner than LEO, with variables as LEO is.
CONFIG = Config().replace(outer_lr=0.0625, method="maml", way=2, adaptation_steps=1)
_KEEP = 2
_FOREIGN = [
    "checkpoints/notes.txt",
    "checkpoints/step-00000001-copy/variables.index",
    "checkpoints/my-step-00000030/manifest.json",
    "best/mine.json",
    "events/of-tensorboard",
]

Expect = Callable[[str, bool, object], None]
Actions = Iterator[tuple[str, Callable[[], None]]]


def variables(step: int) -> dict[str, tf.Variable]:
    """Returns the content of a step's checkpoint."""
    random = np.random.default_rng(step)
    awkward = np.array([np.nan, -0.0, np.inf, 1e-45, step], np.float32)
    return {
        "leo/kernel": tf.Variable(np.float32(random.normal(size=[60, 50]))),
        "leo/inner.lr": tf.Variable(random.normal(size=[1, 3])),
        "leo/awkward": tf.Variable(awkward),
        "adam/iteration": tf.Variable(step, dtype="int64"),
    }


def _holds(checkpoint, step: int) -> bool:
    """Tells whether it is the checkpoint of `step`, bit for bit."""
    found, expected = variables(0), variables(step)
    restore_variables(checkpoint.path, found)
    same = all(
        found[name].numpy().tobytes() == expected[name].numpy().tobytes()
        for name in expected
    )
    return same and checkpoint.step == step and checkpoint.manifest["of"] == step


def _ignore(reason: str):
    """Stands in for `newest`'s report of skipped checkpoints."""


def _save(checkpoints: Checkpoints, step: int):
    checkpoints.save(step, variables(step), {"of": step})


def whole(find: Callable, steps: set[int]) -> tuple[bool, str]:
    """Tells whether `find` gives a checkpoint of one of these steps, bit for bit."""
    try:
        checkpoint = find()
    except CheckpointError as error:
        return False, str(error)
    if checkpoint is None:
        return None in steps, "none"
    kept = checkpoint.step in steps and _holds(checkpoint, checkpoint.step)
    return kept, f"step {checkpoint.step}"


def bytes_below(directory: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


class GoingOn:
    """Step 30 is saved beside earlier ones, may be marked as the best; pruning.

    Args:
      steps: those that are there.
      best: the best of them.
      improves: whether step 30 is better.
    """

    def __init__(self, steps: list[int], best: int, improves: bool):
        self.steps, self.best, self.improves = steps, best, improves

    def prepare(self, workdir: pathlib.Path) -> None:
        checkpoints = Checkpoints(workdir, _KEEP)
        with RunDirectory(workdir).for_training(CONFIG) as directory:
            directory.write_config(CONFIG)
        for step in self.steps:
            _save(checkpoints, step)
        checkpoints.mark_best(self.best)
        for name in _FOREIGN:
            (workdir / name).parent.mkdir(parents=True, exist_ok=True)
            (workdir / name).write_text("not ours")

    def actions(self, directory: RunDirectory) -> Actions:
        checkpoints = Checkpoints(directory.path, _KEEP)
        yield "save", lambda: _save(checkpoints, 30)
        if self.improves:
            yield "mark_best", lambda: checkpoints.mark_best(30)
        yield "prune", checkpoints.prune

    def check(self, workdir, before: pathlib.Path, done: set, expect: Expect) -> None:
        checkpoints, passed_over = Checkpoints(workdir, _KEEP), []
        allowed = {30} if "save" in done else {20, 30}
        kept, found = whole(lambda: checkpoints.newest(passed_over.append), allowed)
        expect("newest", kept and not passed_over, [found, *passed_over])
        allowed = {self.best, 30} if self.improves and "save" in done else {self.best}
        allowed = {30} if "mark_best" in done else allowed
        expect("best", *whole(checkpoints.best, allowed))
        self._check_others(workdir, before, done, expect)
        self._check_next(workdir, expect)

    def _check_others(self, workdir, before, done, expect):
        pruning = ("mark_best" if self.improves else "save") in done
        stay = {20} if self.improves else {20, self.best}
        for step in self.steps:
            name = f"checkpoints/step-{step:08d}"
            same = bytes_below(workdir / name) == bytes_below(before / name)
            expect("earlier", same or (pruning and step not in stay), name)
        for name in _FOREIGN:
            there = (workdir / name).is_file()
            kept = there and (workdir / name).read_text() == "not ours"
            expect("foreign", kept, name)

    def _check_next(self, workdir, expect):
        checkpoints = Checkpoints(workdir, _KEEP)
        # The same step again, or past it: what was left behind must go either way.
        steps = (30, 40) if self.improves else (40, 50)
        with RunDirectory(workdir).for_training(CONFIG):
            for step in steps:
                _save(checkpoints, step)
                checkpoints.mark_best(step)
                checkpoints.prune()
                for find in (lambda: checkpoints.newest(_ignore), checkpoints.best):
                    expect("next", *whole(find, {step}))
        names = {path.name for path in checkpoints.directory.iterdir()}
        foreign = {"notes.txt", "step-00000001-copy", "my-step-00000030"}
        ours = {f"step-{step:08d}" for step in steps}
        expect("leftovers", names == ours | foreign, sorted(names))


class FirstTime:
    """Nothing is there, not even the directory; a run begins and saves step 10."""

    def prepare(self, workdir: pathlib.Path) -> None:
        (workdir.parent / "neighbour.txt").write_text("not ours")

    def actions(self, directory: RunDirectory) -> Actions:
        checkpoints = Checkpoints(directory.path, _KEEP)
        yield "config", lambda: directory.write_config(CONFIG)
        yield "save", lambda: _save(checkpoints, 10)
        yield "mark_best", lambda: checkpoints.mark_best(10)
        yield "prune", checkpoints.prune

    def check(self, workdir, before: pathlib.Path, done: set, expect: Expect) -> None:
        checkpoints, passed_over = Checkpoints(workdir, _KEEP), []
        allowed = {10} if "save" in done else {10, None}
        kept, found = whole(lambda: checkpoints.newest(passed_over.append), allowed)
        expect("newest", kept and not passed_over, [found, *passed_over])
        if "mark_best" in done:
            expect("best", *whole(checkpoints.best, {10}))
        neighbour = workdir.parent / "neighbour.txt"
        expect("foreign", neighbour.is_file(), neighbour.name)
        with RunDirectory(workdir).for_training(CONFIG) as directory:
            directory.write_config(CONFIG)
            _save(checkpoints, 10)
            checkpoints.mark_best(10)
        expect("next", *whole(checkpoints.best, {10}))


class SettingAside:
    """Step 20 is damaged; it is set aside and saved again, from step 10 on."""

    def prepare(self, workdir: pathlib.Path) -> None:
        GoingOn([10, 20], best=10, improves=False).prepare(workdir)
        (workdir / "checkpoints/step-00000020/variables.index").write_bytes(b"damaged")

    def actions(self, directory: RunDirectory) -> Actions:
        checkpoints = Checkpoints(directory.path, _KEEP)
        yield "set_aside", lambda: checkpoints.newest(_ignore, set_aside=True)
        yield "save", lambda: _save(checkpoints, 20)

    def check(self, workdir, before: pathlib.Path, done: set, expect: Expect) -> None:
        checkpoints = Checkpoints(workdir, _KEEP)
        allowed = {20} if "save" in done else {10, 20}
        find = functools.partial(checkpoints.newest, _ignore)
        expect("newest", *whole(find, allowed))
        expect("best", *whole(checkpoints.best, {10}))
        earlier = bytes_below(workdir / "checkpoints/step-00000010")
        kept = earlier == bytes_below(before / "checkpoints/step-00000010")
        expect("earlier", kept, "step 10")
        contents = bytes_below(workdir / "checkpoints").values()
        expect("earlier", b"damaged" in contents, "what was damaged is still there")
        checkpoints.newest(_ignore, set_aside=True)
        _save(checkpoints, 20)
        expect("next", *whole(find, {20}))


SCENARIOS = {
    "going on, step 30 is the best": GoingOn([10, 20], best=20, improves=True),
    "going on, step 10 stays the best": GoingOn([5, 10, 20], best=10, improves=False),
    "the first start": FirstTime(),
    "setting aside": SettingAside(),
}
