"""Garbage collector thresholds. The API and the workers import this module before any large import.

With Python's defaults (700, 10, 10), a quarter of a worker's startup time goes into collecting imported objects that
stay anyway.
"""

import gc

gc.set_threshold(10_000, 20, 50)
