"""``python -m relume`` is the command ``relume``."""

from relume.cli import main

main()
