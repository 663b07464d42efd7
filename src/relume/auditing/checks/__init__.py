"""The checks of an audit, one in each file, and the table of them."""
