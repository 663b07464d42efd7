"""One pipeline over many pictures: a source is listed in a manifest, its items become rows, and rows are kept in parts."""
