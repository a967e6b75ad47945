"""Clients and servers of exported models, independent of the training code."""

from leo_tf.serving.classifier import Classifier

__all__ = ["Classifier"]
