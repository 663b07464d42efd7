"""What relume costs, and how right it is, beside other tools: `python -m benchmarks.NAME`."""
