"""The engine. Whoever imports any of it, the API and every command too, runs with these settings of Python."""

import gc

# What is read in at the start stays: with Python's own thresholds (700, 10, 10) a tenth of the start of the API goes into
# looking at it again and again. Not higher, because results in memory that hang on a cycle wait for the next look.
gc.set_threshold(10_000, 20, 50)
