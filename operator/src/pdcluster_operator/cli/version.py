"""`pdc version`."""

from importlib.metadata import version as installed


def version() -> None:
    """Say which version this is."""
    print(installed("pdcluster-operator"))
