"""What differs between the roles outside the core: how a request is prepared, and which links a worker has."""

from typing import Protocol

from pdcluster_worker.core.hashing import block_hashes
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import Role
from pdcluster_worker.engine.validate import ModelLimits, check_request
from pdcluster_worker.errors import ValidationError


class RoleParts(Protocol):
    """`prepare` runs on prepare threads, several at once: it must be pure."""

    links_to_decode: bool
    """Opens a link to every decode worker that routers name."""
    serves_links: bool
    """Lets prefill workers reserve blocks here."""

    def prepare(self, request: Request) -> bytes:
        """Hashes of the request's full blocks. Raises ValidationError."""
        ...


class _ComputingRole:
    """Checks a request against the model and hashes its blocks."""

    def __init__(self, limits: ModelLimits, block_size: int, model_id: str, layout_hash: str) -> None:
        self._limits = limits
        self._block_size = block_size
        self._model_id = model_id
        self._layout_hash = layout_hash

    def prepare(self, request: Request) -> bytes:
        check_request(request, self._limits)
        return block_hashes(request.tokens, self._block_size, self._model_id, self._layout_hash, request.cache_salt)


class PrefillRole(_ComputingRole):
    """The hashes also go into the reservation, so that a decode worker can say what it has already."""

    links_to_decode = True
    serves_links = False


class MixedRole(_ComputingRole):
    links_to_decode = False
    serves_links = False


class DecodeRole:
    """Requests come over links, prepared by a prefill worker; one that a router submits is in the wrong place."""

    links_to_decode = False
    serves_links = True

    def prepare(self, request: Request) -> bytes:
        raise ValidationError("this worker only decodes: submit to a prefill or mixed worker")


def make_role(role: Role, limits: ModelLimits, block_size: int, model_id: str, layout_hash: str) -> RoleParts:
    if role is Role.DECODE:
        return DecodeRole()
    kind = PrefillRole if role is Role.PREFILL else MixedRole
    return kind(limits, block_size, model_id, layout_hash)
