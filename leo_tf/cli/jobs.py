"""Runs the job of each mode: calls the library and prints its results.

No other package prints results or sets exit statuses.
"""

import dataclasses
import json
import os
import pathlib
import shlex
from collections.abc import Callable

from leo_tf.cli.flags import RunOptions
from leo_tf.console import Console
from leo_tf.data_pipeline.images.class_splits import ALL
from leo_tf.environment import program, python
from leo_tf.experiments.compare import compare
from leo_tf.experiments.embed import embed, pretrain
from leo_tf.experiments.evaluate import evaluate
from leo_tf.experiments.folds import compare_folds
from leo_tf.experiments.from_images import from_images, methods_of
from leo_tf.experiments.reproduce import reproduce
from leo_tf.experiments.search import SETTINGS_FILE, search
from leo_tf.experiments.train import train
from leo_tf.export.exporter import export_model
from leo_tf.files import near
from leo_tf.methods.defaults import SEARCHED, compared
from leo_tf.methods.registry import method_of, unused
from leo_tf.methods.variants import variant_named
from leo_tf.reports import comparison, folds, reproduction, results
from leo_tf.reports import search as search_report
from leo_tf.reports.table import show

# Flags that must be the same in all jobs on the same pictures.
_SPLITTING = ("class_split", "class_folds", "fold", "split_seed")


def _with_features(job: Callable[[RunOptions, Console], None]) -> Callable:
    """Returns a job that first embeds pictures, if any are given."""

    def do(options: RunOptions, console: Console) -> None:
        _say_unused(options, console)
        config = options.config
        if options.pictures:
            found = embed(data=config.data, console=console, **options.pictures)
            named = {"dataset_name": options.explicit.get("dataset_name", found.name)}
            config = config.replace(**{**found.data(), **named})
        job(dataclasses.replace(options, config=config), console)

    return do


def _say_unused(options: RunOptions, console: Console) -> None:
    """Names flags without any effect: most likely another was meant."""
    config, explicit = options.config, options.explicit
    usual = {"compare": compared(config), "search": SEARCHED}
    usual["from_images"] = methods_of(config)
    names = options.arguments.get("methods") or usual.get(options.mode)
    variants = [variant_named(name) for name in names or [config.methods.method]]
    if options.mode == "search":  # of those that are trained
        variants = [each for each in variants if each.entry.is_trained]
    methods = {each.method for each in variants}
    idle = unused(config, explicit, methods) if methods else []
    have_own = all("feature_transform" in each.settings for each in variants)
    if methods and have_own and "feature_transform" in explicit:
        idle.append("feature_transform")
    if idle:
        flags = ", ".join(f"--{name}" for name in idle)
        console.say(f"No effect on {' and '.join(sorted(methods))}: {flags}.")


def _train(options: RunOptions, console: Console) -> None:
    run = train(
        options.config, options.workdir or None, console=console, **options.arguments
    )
    if run.results is None:
        return  # only the chief worker prints
    show(results.terminal(run.results))
    path = near(run.path)
    print(f"Run directory: {path}")
    if method_of(run.config).is_trained:
        logdir = shlex.quote(f"--logdir={path}")
        print(f"TensorBoard:   {python()} -m tensorboard.main {logdir}")


def _evaluate(options: RunOptions, console: Console) -> None:
    asked = {**options.arguments, **options.explicit}
    show(results.terminal(evaluate(options.workdir, console=console, **asked)))


def _group_job(job: Callable, report: Callable, last_line: str) -> Callable:
    """Returns a job of several runs that prints its table, then `last_line`."""

    def do(options: RunOptions, console: Console) -> None:
        workdir = options.workdir or None
        found = job(
            options.config, workdir=workdir, console=console, **options.arguments
        )
        show(report(found))
        print(last_line.format(near(found.directory)))

    return do


def _compare(options: RunOptions, console: Console) -> None:
    data, last_line = options.config.data, "Directory: {}"
    job = _group_job(compare, comparison.terminal, last_line)
    if data.class_folds and data.fold is None:
        job = _group_job(compare_folds, folds.terminal, last_line)
    job(options, console)


def _export(options: RunOptions, console: Console) -> None:
    path = export_model(options.workdir, **options.arguments, console=console)
    step = json.loads((path / "export.json").read_text())["step"]
    print(f"Export of step {step}: {path}")


def _from_images(options: RunOptions, console: Console) -> None:
    _say_unused(options, console)
    explicit, arguments = dict(options.explicit), dict(options.arguments)
    images = arguments["images"]
    name = os.path.basename(os.path.abspath(images)) or "pictures"
    workdir = options.workdir or f"runs/{name}"
    found = from_images(
        workdir=workdir, settings=explicit, console=console, **arguments
    )
    show(comparison.terminal(found.comparison))
    path = near(found.exported.parent)
    print(f"Exported: {path}")
    serve = shlex.quote(f"--export_dir={path}")
    print(f"To serve it:  {program()} --mode=serve {serve}")


def _pretrain(options: RunOptions, console: Console) -> None:
    config, arguments = options.config, options.arguments
    found = pretrain(
        workdir=options.workdir,
        data=config.data,
        seed=config.run.seed,
        mixed_precision=config.run.mixed_precision,
        strategy=config.run.strategy,
        console=console,
        **arguments,
    )
    results, of = found["results"], "held out" if found["held_out"] else "trained on"
    reached = results["val_accuracy" if found["held_out"] else "accuracy"]
    print(f"Accuracy on pictures {of}: {100 * reached:.2f} %")
    given = {"images": arguments["images"], "backbone": near(options.workdir)}
    given |= {n: options.explicit[n] for n in _SPLITTING if n in options.explicit}
    flags = shlex.join(f"--{name}={value}" for name, value in given.items())
    print(
        f"To embed with it:  {program()} --mode=embed {flags} --features_dir=features"
    )


def _embed(options: RunOptions, console: Console) -> None:
    found = embed(data=options.config.data, console=console, **options.arguments)
    metadata, path = found.metadata, near(found.directory)
    for split, size in metadata["sizes"].items():
        print(f"{split}: {size['classes']} classes, {size['rows']} pictures")
    print(
        f"{metadata['embedding_size']} features each, by {metadata['backbone']}: {path}"
    )
    given = {"data_path": near(pathlib.Path(found.data()["data_path"]))}
    if metadata["sizes"].keys() == {ALL}:  # its classes are split by these flags
        given |= {n: options.explicit[n] for n in _SPLITTING if n in options.explicit}
    if "class_folds" in given and "fold" not in given:
        given["mode"] = "compare"  # of all folds; a training needs one
    flags = shlex.join(f"--{name}={value}" for name, value in given.items())
    print(f"To train on them:  {program()} {flags}")


JOBS: dict[str, Callable[[RunOptions, Console], None]] = {
    "train": _with_features(_train),
    "evaluate": _evaluate,
    "search": _with_features(
        _group_job(
            search,
            lambda found: search_report.terminal(found.trials),
            f"Settings for --method_settings: {{}}/{SETTINGS_FILE}",
        )
    ),
    "compare": _with_features(_compare),
    "reproduce": _with_features(
        _group_job(reproduce, reproduction.terminal, "Directory: {}")
    ),
    "pretrain": _pretrain,
    "embed": _embed,
    "from_images": _from_images,
    "export": _export,
}
