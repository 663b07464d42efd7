"""Files of recordings, one format in each file, and the table of them."""
