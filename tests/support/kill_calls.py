"""The mutating calls of each scenario in which the operator is killed: how often each is made, in the order of a run.

A call is named as the proxy names it; `points` numbers its occurrences. How often a status is told depends on what the
operator sees at once, so that a late repetition need not happen; every other number is exact. A test compares them with
those that the operator makes, and says what they are.
"""

from collections.abc import Mapping

STATUS = " status"

CREATION = {
    "PATCH controllerrevisions demo-workers-REVISION": 1,
    "PATCH controllerrevisions demo-router-REVISION": 1,
    "PATCH secrets demo-ca": 1,
    "PATCH secrets demo-prefill-tls": 1,
    "PATCH secrets demo-decode-tls": 1,
    "PATCH secrets demo-router-tls": 1,
    "PATCH serviceaccounts demo-router": 1,
    "PATCH roles demo-router": 1,
    "PATCH rolebindings demo-router": 1,
    "PATCH services demo-router": 1,
    "PATCH services demo-prefill": 1,
    "PATCH services demo-decode": 1,
    "PATCH networkpolicies demo-workers": 1,
    "PATCH networkpolicies demo-router": 1,
    "PATCH statefulsets demo-prefill": 1,
    "PATCH statefulsets demo-decode": 1,
    "PATCH deployments demo-router": 1,
    "PATCH poddisruptionbudgets demo-prefill": 1,
    "PATCH poddisruptionbudgets demo-decode": 1,
    "PATCH poddisruptionbudgets demo-router": 1,
    "PATCH pdclusters demo status": 3,
}

CALLS: Mapping[str, Mapping[str, int]] = {
    "life": {
        **CREATION,
        "PATCH controllerrevisions demo-workers-REVISION": 2,
        "PATCH controllerrevisions demo-router-REVISION": 2,
        "PATCH statefulsets demo-prefill": 4,
        "PATCH statefulsets demo-decode": 7,
        "POST pdrolescalers": 1,
        "PATCH pdclusters demo status": 15,
        "PATCH pdrolescalers demo-decode status": 11,
        "PATCH pods demo-decode-1": 2,
        "DELETE poddisruptionbudgets demo-prefill": 1,
        "DELETE poddisruptionbudgets demo-decode": 1,
        "DELETE poddisruptionbudgets demo-router": 1,
        "PATCH pods demo-prefill-0": 1,
        "PATCH pods demo-decode-0": 1,
    },
    "again": CREATION,
    "at-once": CREATION,
    "tls": {
        "PATCH controllerrevisions demo-workers-REVISION": 1,
        "PATCH controllerrevisions demo-router-REVISION": 1,
        "PATCH statefulsets demo-prefill": 6,
        "PATCH statefulsets demo-decode": 6,
        "PATCH deployments demo-router": 2,
        "PATCH pods demo-prefill-0": 2,
        "PATCH pdclusters demo status": 14,
        "PATCH pods demo-decode-0": 2,
        "DELETE secrets demo-ca": 1,
        "DELETE secrets demo-prefill-tls": 1,
        "DELETE secrets demo-decode-tls": 1,
        "DELETE secrets demo-router-tls": 1,
        "PATCH secrets demo-ca": 1,
        "PATCH secrets demo-prefill-tls": 1,
        "PATCH secrets demo-decode-tls": 1,
        "PATCH secrets demo-router-tls": 1,
    },
    "drain": {
        "PATCH pods demo-decode-1": 3,
        "PATCH pods demo-decode-2": 1,
        "PATCH statefulsets demo-decode": 2,
        "PATCH pdclusters demo status": 8,
        "PATCH pdrolescalers demo-decode status": 5,
    },
}


def points(scenario: str) -> list[str]:
    """Every occurrence of every call of it."""
    return [f"{name}#{number + 1}" for name, times in CALLS[scenario].items() for number in range(times)]


def differences(scenario: str, made: Mapping[str, int]) -> list[str]:
    """What the operator makes and the table does not have, or the other way round, each as a line for the table."""
    listed = CALLS[scenario]
    return [
        f'"{name}": {made.get(name, 0)},  # of {listed.get(name, 0)}'
        for name in {**listed, **made}
        if not _agrees(name, listed.get(name, 0), made.get(name, 0))
    ]


def _agrees(name: str, listed: int, made: int) -> bool:
    if name.endswith(STATUS):
        return listed * 2 <= made * 3 + 3 and made <= listed * 2 + 2 and bool(listed) is bool(made)
    return listed == made
