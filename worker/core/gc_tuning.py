"""How often Python looks for cycles of objects. Imported by the API and the workers before what is large.

What an application reads in stays: with Python's own thresholds (700, 10, 10) a fourth of the start of a worker goes
into looking at it again and again.
"""

import gc

gc.set_threshold(10_000, 20, 50)
