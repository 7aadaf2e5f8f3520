"""A run of bytes in a file, read a piece at a time.

Not mapped into memory: pages of a mapping count as the process's own, beside the parameters made from them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pdcluster_worker.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class FileRange:
    path: Path
    start: int
    length: int

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes [start, stop) of the range. CheckpointError when the file has become shorter, or cannot be read."""
        try:
            data = np.fromfile(self.path, np.uint8, stop - start, offset=self.start + start)
        except OSError as error:
            raise CheckpointError(f"{self.path}: {error.strerror or error}") from error
        if len(data) != stop - start:
            raise CheckpointError(f"{self.path} ends within what its header says it holds: truncated while it was read")
        return data
