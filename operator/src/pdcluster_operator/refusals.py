"""What the API server's words of refusal mean, as a condition's reason. Pure."""

import re

REASONS = (
    ("QuotaExceeded", re.compile("exceeded quota")),
    ("NamespaceTerminating", re.compile("being terminated")),
    ("PodSecurityRefused", re.compile("violates PodSecurity")),
    ("LimitRangeViolated", re.compile(r"(maximum|minimum) \S+ usage per |max limit to request ratio per ")),
)
"""The API server has no codes for these, only words; the first that fits counts."""


def reason_of(words: str, otherwise: str) -> str:
    """The reason that these words stand for, else `otherwise`."""
    return next((reason for reason, pattern in REASONS if pattern.search(words)), otherwise)
