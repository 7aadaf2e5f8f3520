"""Which of the test processes that run side by side (`pytest -n`) this one is, and what it has to itself.

Every process starts a control plane of its own, so that only the host's loopback addresses need to be shared out.
"""

import ipaddress
import os


def place() -> int:
    """From 0; a test process that runs alone has the first place."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def loopback() -> ipaddress.IPv4Network:
    """The addresses of the pods in this process: KWOK hands out from the lower half, the node agents from the upper."""
    return ipaddress.IPv4Network(f"127.{1 + place()}.0.0/16")


def agents() -> ipaddress.IPv4Network:
    """The upper half of `loopback`."""
    return list(loopback().subnets())[1]
