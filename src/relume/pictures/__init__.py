"""Photographs in, pictures of maps out."""
