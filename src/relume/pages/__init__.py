"""HTML pages, and folders of files that are written whole or not at all."""
