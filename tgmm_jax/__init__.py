"""Algorithms learned by transformers for unsupervised problems, in JAX."""

__version__ = "0.1.0"
