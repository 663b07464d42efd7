"""The explanation of a batch of images: :func:`relume.explain` and its result."""
