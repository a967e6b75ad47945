"""LEO: Meta-Learning with Latent Embedding Optimization, in TensorFlow 2 and Keras.

Rusu et al., ICLR 2019, arXiv:1807.05960, faithful to DeepMind's original release.
"""

import pathlib

__version__ = "0.1.0"

# `configs/` and `data_pipeline/` lie beside this folder in a checkout, and inside it
# when installed; either way they are imported as `leo_tf.configs` and so on.
if not pathlib.Path(__file__).with_name("configs").is_dir():
    __path__.append(str(pathlib.Path(__file__).parents[1]))
