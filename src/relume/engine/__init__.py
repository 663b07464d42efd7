"""Gradients by a rule on anybody's network, which is left untouched."""
