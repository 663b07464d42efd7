"""The engine: gradients by a rule on anybody's network, which is left untouched. It needs torch alone."""

from relume.engine.rectifiers import RECTIFIERS, Rectifier

__all__ = ["RECTIFIERS", "Rectifier"]
