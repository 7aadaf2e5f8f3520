"""Keeps the adapter registered: the one certificate of all replicas in the Secret, and its authority in the APIService.

Any replica may write; the resourceVersion decides who did, and the others read what it wrote. The APIService is only
ever touched while it points to the adapter's own Service: somebody else's ends the process.
"""

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from pdcluster_operator.certificates import Pair
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.follow import Follower, one
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.resources import SECRET, Manifest, Resource
from pdcluster_operator.scaling.adapter.answers import GROUP
from pdcluster_operator.scaling.adapter.material import renewed, restored, stored
from pdcluster_operator.scaling.adapter.settings import AdapterSettings

log = structlog.get_logger(__name__)

API_SERVICE = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService")
API_SERVICE_NAME = f"v1beta1.{GROUP}"
LOOK_SECONDS = 3600.0
"""So often the certificate's age is looked at, when nothing else happens."""
AGAIN_SECONDS = 5.0


class ForeignOwnerError(OperatorError):
    """External metrics are served by somebody else; the adapter never takes over."""


def check_owner(service: Manifest, settings: AdapterSettings) -> None:
    """Raises ForeignOwnerError unless the APIService points to the adapter's Service."""
    found = service["spec"].get("service") or {}
    if (found.get("namespace"), found.get("name")) != (settings.namespace, settings.service):
        owner = f"Service {found.get('namespace')}/{found.get('name')}" if found else "the API server itself"
        raise ForeignOwnerError(
            f"APIService {API_SERVICE_NAME} belongs to {owner}: only one adapter can serve external metrics"
        )


class Keeper:
    """`run` until cancelled. `show` gets the certificate to serve, whenever there is a new one."""

    def __init__(
        self,
        kube: Kube,
        follower: Follower,
        settings: AdapterSettings,
        show: Callable[[Pair], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._follower = follower
        self._settings = settings
        self._show = show
        self._now = now
        self._secret: Manifest | None = None
        self._service: Manifest | None = None
        self._changed = asyncio.Event()
        self.is_registered = False
        """The API server trusts what is served."""

    async def run(self) -> None:
        """Raises ForeignOwnerError, or MaterialError of a Secret that holds something else.

        An API server that does not answer is only waited for.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_secret())
            group.create_task(self._follow_service())
            group.create_task(self._keep())

    async def _follow_secret(self) -> None:
        async for found in self._follower.states(one(SECRET, self._settings.namespace, self._settings.secret)):
            self._secret = found
            self._changed.set()

    async def _follow_service(self) -> None:
        async for found in self._follower.states(one(API_SERVICE, "", API_SERVICE_NAME)):
            self._service = found
            self._changed.set()

    async def _keep(self) -> None:
        wait = LOOK_SECONDS
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                log.debug("looking_at_the_certificate")
            self._changed.clear()
            try:
                await self._turn()
                wait = LOOK_SECONDS
            except KubeError as error:
                log.warning("not_kept", reason=str(error))
                wait = AGAIN_SECONDS

    async def _turn(self) -> None:
        service, secret = self._service, self._secret
        if service is None or secret is None:
            self.is_registered = False
            missing = f"APIService {API_SERVICE_NAME}" if service is None else f"Secret {self._settings.secret}"
            log.info("waiting", missing=missing)
            return
        check_owner(service, self._settings)
        trusted = base64.b64decode(service["spec"].get("caBundle") or "")
        material = restored(secret.get("data") or {})
        wanted = renewed(material, self._settings.names, self._now(), trusted)
        if wanted is not material:
            self._secret = await self._kube.replace(_filled(secret, stored(wanted)))
            log.info("certificate_renewed")
        self._show(wanted.leaf)
        if trusted != wanted.bundle:
            self._service = await self._trust(service, wanted.bundle)
            self._changed.set()
        self.is_registered = True

    async def _trust(self, service: Manifest, bundle: bytes) -> Manifest:
        """Only of the very object that was looked at: had somebody taken it over since, this is a conflict."""
        patch = {
            "metadata": {"resourceVersion": service["metadata"]["resourceVersion"]},
            "spec": {"caBundle": base64.b64encode(bundle).decode()},
        }
        return await self._kube.merge(API_SERVICE, "", API_SERVICE_NAME, patch)


def _filled(secret: Manifest, data: dict[str, str]) -> Manifest:
    """The Secret with other data; what a watch tells of it lacks nothing but its kind."""
    return {**secret, "apiVersion": "v1", "kind": SECRET.kind, "data": data}
