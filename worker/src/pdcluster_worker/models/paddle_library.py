"""The one import of Paddle: seconds long, and loud about a compiler cache that it does not need here."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import paddle

__all__ = ["paddle"]
