"""The splits of a run's data set, and the episodes of a configuration.

Shapes: B episodes, N way, K shot, Q queries per class, D embedding size.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from leo_tf.configs.schema import Config
from leo_tf.console import SILENT, Console
from leo_tf.data_pipeline.embeddings import EmbeddingTable, in_words, mapping_of
from leo_tf.data_pipeline.large_tables import prepared
from leo_tf.data_pipeline.pipeline import (
    EpisodesByRow,
    FeatureTable,
    episodes,
    mixed_episodes,
)
from leo_tf.data_pipeline.release_layout import SPLITS
from leo_tf.data_pipeline.sampler import (
    RowSampler,
    drawn_shapes,
    largest_num_query,
)
from leo_tf.data_pipeline.sources import Data, read
from leo_tf.data_pipeline.splits import join
from leo_tf.errors import FlagError, InputError, one_line, quoted

# A batch of episodes takes about this much memory, whatever the number of queries.
_BATCH_BYTES = 64 * 2**20
# Copies of the relation network's [B, N * K, N * K, 2 * Z] pairs that are alive.
_LIVE_PAIRS = 3
# Copies of the queries' scores: per class, per episode, as log-probabilities, products.
_LIVE_SCORES = 4


class Split(NamedTuple):
    """One split of a data set: its features in memory once, and its metadata."""

    name: str  # "train", "val" or "test": which stream of episodes is drawn
    table: FeatureTable
    class_names: tuple[str, ...]
    images: np.ndarray | None
    digest: str
    source: str

    @property
    def embedding_size(self) -> int:
        """Size D of an embedding."""
        return self.table.features.shape[1]

    def __str__(self) -> str:
        found = in_words(self.table.index.class_sizes)
        return f"{self.name}: {found}, {one_line(self.source)}"


def load(
    config: Config,
    wanted: Sequence[str] = SPLITS,
    data: Data | None = None,
    console: Console = SILENT,
) -> dict[str, Split]:
    """Loads the wanted splits, and checks that the episodes of `config` fit.

    `data` is from `load_data`, or None to read the data set of the configuration.

    Raises:
      InputError, FlagError: as `sources.read` does; also if episodes do not fit.
    """
    joins = config.data.train_on_val and "train" in wanted
    needed = [name for name in SPLITS if name in wanted or (joins and name == "val")]
    tables = _tables(config, needed, data, console)
    if joins:
        tables["train"] = join([tables["train"], tables["val"]])
    splits = {}
    for name in wanted:
        t = tables.pop(name)
        # Knows the digest of a large table it has seen before.
        if prepared(t, console) is None and mapping_of(t.embeddings) is not None:
            t = t.in_memory()  # once, and told once
        digest = t.digest  # of all data, also of classes dropped below
        if config.data.drop_small_classes:
            t = _without_small_classes(config, name, t, console)
        resident = FeatureTable.from_embeddings(t, console)
        split = Split(name, resident, t.class_names, t.images, digest, t.source)
        is_train = name == "train"
        fits = _training_shape(config) if is_train else evaluation_shape(config, split)
        RowSampler(resident.index, **fits, seed=0, split=name)  # raises if it is not so
        splits[name] = split
    return splits


def training_episodes(config: Config, split: Split, start: int) -> tf.data.Dataset:
    """Returns endless meta-batches of `Episode`, from meta-step `start` on.

    If way or shot is a range, they are drawn for each step: `mixed_episodes`.
    """
    shapes, sizes = config.episodes.shapes, _training_shape(config)
    options: dict[str, Any] = {
        "batch_size": config.episodes.meta_batch_size,
        "seed": config.run.seed,
        "split": split.name,
        "start": start,
    }
    if len(shapes) == 1:
        return episodes(split.table, **sizes, **options)
    options["num_query"] = sizes["num_query"]
    return mixed_episodes(split.table, shapes=shapes, **options)


def steps_alike(config: Config, step: int, most: int) -> int:
    """Returns how many of the next `most` training steps share way and shot."""
    shapes = len(config.episodes.shapes)
    if shapes == 1:
        return most
    numbers = drawn_shapes(config.run.seed, step, most, shapes).numpy()
    return int(np.argmin(np.append(numbers == numbers[0], False)))


def _training_shape(config: Config) -> dict[str, Any]:
    """Returns way, shot and num_query of training episodes, the largest of ranges."""
    shape = config.episodes
    way, shot = shape.shapes[-1]
    return {"way": way, "shot": shot, "num_query": shape.num_query}


def evaluation_episodes(
    config: Config, split: Split, count: int, together: bool = False
) -> EpisodesByRow:
    """Returns the first `count` validation or test episodes, batched to fit memory.

    `together` is true for methods that score all queries of an episode together.
    """
    shape = evaluation_shape(config, split)
    unbalanced = shape.get("query_dirichlet") is not None  # their queries are gathered
    sizes = {name: shape[name] for name in ("way", "shot", "num_query")}
    batch_size = batch_size_for(
        count,
        **sizes,
        embedding_size=split.embedding_size,
        num_latents=config.model.num_latents,
        together=together or unbalanced,
        itemsize=split.table.features.dtype.size,
    )
    sampled: dict[str, Any] = {**shape, "seed": config.run.seed, "split": split.name}
    return EpisodesByRow(
        split.table, batch_size=batch_size, num_episodes=count, **sampled
    )


def evaluation_shape(config: Config, split: Split) -> dict[str, Any]:
    """Returns way, shot and num_query of a split's validation or test episodes.

    Also returns `query_dirichlet`, if their queries are unbalanced.

    Raises:
      InputError: if a class has no row left after the support.
      FlagError: if unbalanced queries would take all there are of each class.
    """
    shape = config.episodes
    num_query, dirichlet = shape.test_num_query, shape.query_dirichlet
    if num_query is None and dirichlet is not None:
        num_query = shape.num_query  # all rows would leave no class more than its share
    if num_query is None:
        num_query = largest_num_query(split.table.index, shape.evaluation_shot)
    way, shot = shape.evaluation_way, shape.evaluation_shot
    most = int(split.table.index.class_sizes.max()) - shot
    if dirichlet is not None and num_query >= most:
        expected = f"below {most}, so that one class can have more than another"
        hint = "Each class has no more examples, so the queries would be balanced."
        raise FlagError("--test_num_query", expected, str(num_query), hint)
    sizes: dict[str, Any] = {"way": way, "shot": shot, "num_query": num_query}
    return sizes if dirichlet is None else {**sizes, "query_dirichlet": dirichlet}


def batch_size_for(
    episodes: int,
    way: int,
    shot: int,
    num_query: int,
    embedding_size: int,
    num_latents: int = 0,
    itemsize: int = 4,
    together: bool = False,
) -> int:
    """Returns how many episodes to evaluate at once within the memory budget.

    Returns:
      B, at most `episodes`. If possible it is a divisor of `episodes` that is at least
      half of what fits, so that the last batch is as large as the others.
    """
    examples = way * shot * embedding_size
    scores = _LIVE_SCORES * way * num_query * way
    pairs = _LIVE_PAIRS * (way * shot) ** 2 * 2 * num_latents
    if together:  # queries are gathered, and compared with each other
        queries = way * num_query
        pairs += _LIVE_PAIRS * queries * (embedding_size + queries)
    fitting = _BATCH_BYTES // (itemsize * (examples + scores + pairs))
    most = max(1, min(episodes, fitting))
    divisors = (b for b in range(most, most // 2, -1) if episodes % b == 0)
    return next(divisors, most)


def _without_small_classes(
    config: Config, name: str, table: EmbeddingTable, console: Console
) -> EmbeddingTable:
    """Returns the table without classes too small for the split's episodes.

    Raises:
      InputError: if fewer than `way` classes are large enough.
    """
    shape = config.episodes
    way, shot = shape.shapes[-1]
    queries, test = shape.num_query, ""
    if name != "train":
        way, shot, test = shape.evaluation_way, shape.evaluation_shot, "test_"
        unbalanced = shape.num_query if shape.query_dirichlet else 1
        queries = shape.test_num_query or unbalanced
    least = shot + queries
    sizes, kept = table.class_sizes, table.class_sizes >= least
    if np.sum(kept) < way:
        where = f"{table.source}: classes for {name}"
        expected = (
            f"at least way = {way} with shot + num_query = {shot} + {queries} rows"
        )
        fewer = f" or --{test}num_query" if queries > 1 else ""
        hint = f"Smaller classes are dropped. Lower --{test}way or --{test}shot{fewer}."
        raise InputError(where, expected, f"{np.sum(kept)} of {len(sizes)}", hint)
    if kept.all():
        return table
    small = [f"{quoted(table.class_names[c])} ({sizes[c]})" for c in np.where(~kept)[0]]
    few = f"{len(small)} of {len(sizes)} classes with fewer than {least} rows"
    console.say(f"{name}: dropped {few}: {', '.join(small)}")
    return table.with_classes(kept)


def _tables(
    config: Config, needed: Sequence[str], data: Data | None, console: Console
) -> dict[str, EmbeddingTable]:
    if data is None:
        return read(config.data, needed, console)
    dtype, is_same = config.data.dtype, data.source.dtype == config.data.dtype
    if not is_same and not data.in_memory:
        # The files may have more digits than the tables kept.
        return read(dataclasses.replace(data.source, dtype=dtype), needed, console)
    if not set(needed) <= set(data):
        hint = "Training learns on train, selects the best step on val, tests on test."
        if "val" not in data and "train" in data:
            hint += " load_data(..., val_classes=N) moves N classes of train to val."
        expected, received = (", ".join(names) for names in (needed, data))
        raise InputError("splits of data", expected, received, hint)
    found = {name: data[name] for name in needed}
    if is_same:
        return found
    return {n: dataclasses.replace(table, dtype=dtype) for n, table in found.items()}
