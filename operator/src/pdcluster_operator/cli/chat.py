"""`pdc chat`."""


def chat() -> None:
    """Talk."""
