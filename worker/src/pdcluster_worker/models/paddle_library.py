"""The one import of Paddle: seconds long, and on stderr, where logs are, talkative about what is no concern here."""

import contextlib
import io
import warnings

with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
    warnings.simplefilter("ignore")
    import paddle

__all__ = ["paddle"]
