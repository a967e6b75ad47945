"""Clients and servers of exported models; needs nothing of training."""

from leo_tf.serving.classifier import Classifier

__all__ = ["Classifier"]
