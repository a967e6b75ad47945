"""LEO: Meta-Learning with Latent Embedding Optimization, in TensorFlow 2 and Keras.

Rusu et al., ICLR 2019, arXiv:1807.05960, faithful to DeepMind's original release.
"""

__version__ = "0.1.0"
