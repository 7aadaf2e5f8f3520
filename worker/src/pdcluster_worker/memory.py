"""When Python looks for reference cycles: rarely, and never among what was made at the start.

A worker makes thousands of small objects per second that end with their requests, without cycles. The default looks
through all that live after every few hundred of them, which took a sixth of the engine thread under load.
"""

import gc

THRESHOLDS = (20_000, 20, 50)
"""New objects before a look at the young ones, and looks before one at the older ones."""


def settle() -> None:
    """Call it once, when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
