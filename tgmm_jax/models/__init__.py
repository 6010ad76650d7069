"""Transformers that are trained, as pure functions over a params pytree."""
