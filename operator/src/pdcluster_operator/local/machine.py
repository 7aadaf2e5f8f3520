"""What this machine has."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """`cores` that we may use, by number."""

    cores: tuple[int, ...]
    gpus: int
    has_rdma: bool


def this_machine() -> Machine:
    return Machine(
        cores=tuple(sorted(os.sched_getaffinity(0))),
        gpus=len([device for device in Path("/dev").glob("nvidia[0-9]*") if device.name[6:].isdigit()]),
        has_rdma=any(Path("/sys/class/infiniband").glob("*")),
    )
