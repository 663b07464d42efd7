"""The explanation as a portable graph."""
