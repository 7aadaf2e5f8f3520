"""Who may ask: only who shows the front proxy's certificate. Pure.

The API server has authenticated and authorised a request before it passes it on under that certificate, and tells in a
ConfigMap which authority and which names to expect.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdcluster_operator.errors import OperatorError

NAMESPACE = "kube-system"
CONFIG_MAP = "extension-apiserver-authentication"


class CallersError(OperatorError):
    """The ConfigMap does not say who the front proxy is."""


@dataclass(frozen=True, slots=True)
class Callers:
    """The authority of the front proxy's certificate (PEM), and the common names that it may have; none: any."""

    authority: str
    names: tuple[str, ...]

    def allow(self, certificate: Mapping[str, Any] | None) -> bool:
        """Of a certificate that the authority has signed, as Python's `ssl` describes it."""
        if not certificate:
            return False
        return not self.names or common_name(certificate.get("subject", ())) in self.names


def callers_of(config_map: Mapping[str, Any] | None) -> Callers:
    """Raises CallersError when there is no such ConfigMap, or the API server runs without an aggregation layer."""
    data = (config_map or {}).get("data") or {}
    authority = data.get("requestheader-client-ca-file", "")
    if not authority:
        raise CallersError(f"ConfigMap {NAMESPACE}/{CONFIG_MAP} names no front proxy: is aggregation set up?")
    try:
        names = json.loads(data.get("requestheader-allowed-names") or "[]")
    except ValueError as error:
        raise CallersError(f"requestheader-allowed-names is no JSON list: {error}") from error
    return Callers(authority, tuple(str(name) for name in names))


def common_name(subject: Sequence[Sequence[tuple[str, str]]]) -> str:
    """The last common name of a subject: the most specific one."""
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[-1] if names else ""
