"""relume against Captum, pytorch-grad-cam and zennit, in time and memory: `python -m benchmarks.performance`, or `make bench`.

Each tool is an entry of the table in `contenders`, each network one of the table in `networks`, and what runs is a list of
cases in `plan`. Maps are compared with the definition before anything is timed. The record of a run is plain data, of which
tables and figure are functions. Needs the repository (the definition's slow twin is in `tests/`), not only the package.
"""
