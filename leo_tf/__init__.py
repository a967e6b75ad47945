"""LEO: Meta-Learning with Latent Embedding Optimization, in TensorFlow 2 and Keras.

Rusu et al., ICLR 2019, arXiv:1807.05960, faithful to DeepMind's original release.

    import leo_tf

    config = leo_tf.PRESETS["glyphs"].config().replace(num_steps=1000)
    run = leo_tf.train(config, "runs/first")
    run.results.accuracy

The names below are loaded when asked for: TensorFlow takes seconds.
"""

import importlib
import pathlib
import sys
import typing

__version__ = "0.1.0"

# `configs/` and `data_pipeline/` lie beside this folder in a checkout, and inside it
# when installed; either way they are imported as `leo_tf.configs` and so on.
if not pathlib.Path(__file__).with_name("configs").is_dir():
    __path__.append(str(pathlib.Path(__file__).parents[1]))

if typing.TYPE_CHECKING:
    from leo_tf.configs.presets import PRESETS
    from leo_tf.configs.schema import Config
    from leo_tf.console import Console
    from leo_tf.data_pipeline.embeddings import EmbeddingTable
    from leo_tf.data_pipeline.episode import Episode
    from leo_tf.data_pipeline.pipeline import episodes
    from leo_tf.data_pipeline.sources import load_data
    from leo_tf.experiments.compare import compare
    from leo_tf.experiments.evaluate import evaluate
    from leo_tf.experiments.reproduce import reproduce
    from leo_tf.experiments.search import search
    from leo_tf.experiments.train import train
    from leo_tf.export.exporter import export_model
    from leo_tf.methods.registry import METHODS, register_method
    from leo_tf.model.leo import LEO
    from leo_tf.serving.classifier import Classifier
    from leo_tf.training.callback import Callback
    from leo_tf.training.meta_step import make_meta_step

# Name -> the module that has it.
_MODULES = {
    "Callback": "training.callback",
    "Classifier": "serving.classifier",
    "Config": "configs.schema",
    "Console": "console",
    "EmbeddingTable": "data_pipeline.embeddings",
    "Episode": "data_pipeline.episode",
    "LEO": "model.leo",
    "METHODS": "methods.registry",
    "PRESETS": "configs.presets",
    "compare": "experiments.compare",
    "episodes": "data_pipeline.pipeline",
    "evaluate": "experiments.evaluate",
    "export_model": "export.exporter",
    "load_data": "data_pipeline.sources",
    "make_meta_step": "training.meta_step",
    "register_method": "methods.registry",
    "reproduce": "experiments.reproduce",
    "search": "experiments.search",
    "train": "experiments.train",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> typing.Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        # With both, Python's traceback asks "Did you mean ...?".
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # found at once the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
