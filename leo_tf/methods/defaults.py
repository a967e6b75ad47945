"""Methods of a comparison or a search whose user named none."""

from collections.abc import Mapping, Sequence
from typing import Any

from leo_tf.configs.schema import Config
from leo_tf.console import Console
from leo_tf.methods.variants import variant_named, with_transforms

# Default methods of a search; a comparison runs them after those without training.
SEARCHED = ("leo", "protonet", "generator", "meta_sgd", "maml")
_UNTRAINED = "centroid", "centroid_euclidean", "ridge", "logistic"
# Without training, too, but together they take longer than all the others do.
SLOWER = (
    *("distribution_calibration", "soft_kmeans", "bd_cspn"),
    *("laplacian_shot", "pt_map"),
)
_TRANSFORMS = "none", "within", "soft", "lda"
# Most queries of an episode for transductive methods, and most classes for those that
# know the training classes; with more, a comparison has them only if they are named.
# LaplacianShot takes 10 ms with 1,000 queries, but 100 ms with 3,000, and distribution
# calibration 16 ms with 5 classes, but 170 ms with 20 (two cores).
_MOST_TOGETHER, _MOST_CALIBRATED = 1000, 10


def compared(config: Config) -> list[str]:
    """Returns the default methods of a comparison.

    Methods without training come first. The quick ones stand on each of the transforms
    that help most, `SLOWER` ones on a single transform.
    """
    names, shared = [], config.features.feature_transform
    for method in _UNTRAINED:
        # At one shot both kinds of nearest centroid give the same answers.
        if method != "centroid_euclidean" or config.episodes.evaluation_shot > 1:
            names += with_transforms(method, _TRANSFORMS, shared)
    also = ["none" if shared == "lda" else "lda"]
    slower = [name if shared == "lda" else f"{name}@lda" for name in SLOWER]
    leo, protonet, *others = SEARCHED
    network = protonet if shared == "lda" else f"{protonet}@lda"
    trained = *with_transforms(leo, also, shared), network
    return [*names, "simpleshot", *slower, *trained, *others]


def at_any_way(config: Config, names: Sequence[str], console: Console) -> list[str]:
    """Returns default methods without those that a fixed way rules out, and says so."""
    episodes = config.episodes
    if episodes.evaluation_way == episodes.way:
        return [*names]
    kept = [name for name in names if not variant_named(name).entry.keeps_way]
    others = [variant_named(name).title for name in names if name not in kept]
    if others:
        said = "left out, because they can be tested only with --way classes"
        console.warn(f"{' and '.join(others)}: {said}.")
    return kept


def in_time(
    settings: Mapping[str, dict], shapes: Sequence[Mapping[str, Any]], console: Console
) -> dict[str, dict]:
    """Returns name -> settings without methods slow on such episodes, and says so.

    `shapes` are what `evaluation_shape` returns for validation and for test.
    """
    way = shapes[0]["way"]
    queries = max(way * shape["num_query"] for shape in shapes)
    found, slow = {}, []
    for name, own in settings.items():
        entry = variant_named(name).entry
        is_slow = entry.transductive and queries > _MOST_TOGETHER
        is_slow |= entry.knows_classes and way > _MOST_CALIBRATED
        if is_slow:
            slow.append(variant_named(name).title)
        else:
            found[name] = own
    if slow:
        episode = f"episodes of {way} classes and up to {queries:,} queries"
        hint = "To have them, name them in --methods."
        titles = "; ".join(slow)
        console.warn(f"Left out, as slow on {episode}: {titles}. {hint}")
    return found
