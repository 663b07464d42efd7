"""The report of a run: what is kept of its rows, the sums of its classes, the change from another run, and the page."""
