"""Resolves settings that depend on a run's data, its directory and how it began."""

import dataclasses
import os

from leo_tf.configs.schema import EMBEDDED_DATASET, Config, DataConfig
from leo_tf.data_pipeline.feature_files import made_by
from leo_tf.data_pipeline.release_layout import dataset_of
from leo_tf.data_pipeline.sources import SPLITTING, Data
from leo_tf.errors import FlagError, InputError, quoted
from leo_tf.files import AnyPath
from leo_tf.methods.registry import method_named
from leo_tf.runs.directory import RunDirectory

# XLA takes seconds to compile, which pays off from about this many steps on.
_JIT_PAYS_AFTER = 300
# Subdirectory for data that came from arrays.
DATA = "data"


def uses_jit(config: Config) -> bool:
    """Returns whether XLA compiles the meta-step; for "auto", if the run is long."""
    if config.run.jit == "auto":
        graphs = len(config.episodes.shapes)  # each is compiled
        return config.run.num_steps > _JIT_PAYS_AFTER * graphs
    return config.run.jit == "on"


def default_workdir(config: Config) -> str:
    """Returns the default run directory, e.g. `runs/glyphs_5way_1shot`."""
    shape, fold = config.episodes, config.data.fold
    name = f"{config.data.dataset_name}_{shape.way}way_{shape.shot}shot"
    return f"runs/{name}" if fold is None else f"runs/{name}_fold{fold}"


def with_data(
    config: Config, data: Data | None, workdir: AnyPath | None = None
) -> Config:
    """Returns `config` with an absolute path and the settings that reload `data`.

    Arrays are kept in the run directory.
    """
    if not isinstance(data, Data | None):
        expected, hint = "a result of `load_data`", "leo_tf.load_data(...) returns one."
        raise InputError("`data`", expected, type(data).__name__, hint)
    if data is not None:
        for name in SPLITTING:
            given, theirs = getattr(config.data, name), getattr(data.source, name)
            if given not in (getattr(DataConfig(), name), theirs):
                expected = f"{quoted(theirs)}, as given to load_data"
                raise FlagError(f"--{name}", expected, quoted(given))
        config = config.replace(**data.settings())
        if data.in_memory:
            place = RunDirectory(workdir or default_workdir(config)).path / DATA
            config = config.replace(data_path=str(place))
    split = config.data.class_split
    if split.lower().endswith(".json"):
        config = config.replace(class_split=os.path.abspath(os.path.expanduser(split)))
    if not config.data.data_path:
        return config
    path = os.path.abspath(os.path.expanduser(config.data.data_path))
    return config.replace(data_path=path)


def named(config: Config) -> Config:
    """Returns `config` with the name of the data in its path, unless it has one.

    The default name is that of the embedded data. It stays where the path has data of
    that name, and for features that we made of the embedded pictures.
    """
    data, path = config.data, os.path.expanduser(config.data.data_path)
    if data.dataset_name != EMBEDDED_DATASET or not path or made_by(path) is not None:
        return config
    files = (EMBEDDED_DATASET, f"{EMBEDDED_DATASET}.npz")
    if any(os.path.exists(os.path.join(path, name)) for name in files):
        return config
    data = dataclasses.replace(data, data_path=path)
    return config.replace(dataset_name=dataset_of(data))


def with_choices_of(
    directory: RunDirectory, config: Config, allow_changes: bool
) -> Config:
    """Returns `config` with the settings that the run tuned when it began."""
    begun, mine = directory.begun_config(), config.methods.method
    if begun is None:
        return config
    theirs = begun.methods.method
    if allow_changes and theirs != mine:
        # Even with --allow_changes, the variables of another method would not fit.
        hint = "Train it in another --workdir."
        raise InputError(str(directory.path), f"a run of {mine}", theirs, hint)
    names = (*config.features.chosen, *method_named(mine).chosen)
    given = config.flat()
    chosen = {name: begun.flat()[name] for name in names if given[name] is None}
    config = config.replace(**chosen)
    if allow_changes and config.features != begun.features:
        hint = "Train it in another --workdir."
        expected = "the feature transform that the run began with"
        raise InputError(str(directory.path), expected, "another one", hint)
    return config
