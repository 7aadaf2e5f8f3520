"""The worker's gRPC server: it listens before the model is loaded, and serves once it is. Lives on the I/O loop."""

from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pdcluster_proto.v1 import admin_pb2_grpc
from pdcluster_worker.engine.admin_service import AdminService
from pdcluster_worker.splitwise.channel import bind, make_server
from pdcluster_worker.splitwise.incoming import ProtocolErrorCounter, ServerContext, authorise, guarded, turn_away
from pdcluster_worker.splitwise.tls import ROUTER, TLSIdentity

Serve = Callable[[ServerContext], Awaitable[None]]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcServer:
    """Streams are raw bytes, so that garbage is told from a broken connection by the codecs."""

    def __init__(
        self, max_message_bytes: int, tls: TLSIdentity | None, errors: ProtocolErrorCounter, admin: AdminService
    ) -> None:
        self._tls = tls
        self._errors = errors
        self._inference: Serve | None = None
        self._link: Serve | None = None
        self._health = health.aio.HealthServicer()
        self.server = make_server(max_message_bytes)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        admin_pb2_grpc.add_AdminServicer_to_server(admin, self.server)  # type: ignore[no-untyped-call]
        self._add_stream("pdcluster.v1.Inference", "Stream", self._serve_inference)
        self._add_stream("pdcluster.v1.Splitwise", "Link", self._serve_link)

    async def start(self, host: str, port: int) -> int:
        """Returns the port. Raises ConfigError when it cannot be had."""
        await self._health.set("", NOT_SERVING)
        bound = bind(self.server, host, port, self._tls)
        await self.server.start()
        return bound

    async def open(self, inference: Serve, link: Serve | None) -> None:
        """The model is loaded: serve. `link` is None in roles that reserve nothing."""
        self._inference = inference
        self._link = link
        await self._health.set("", SERVING)

    async def close(self, grace: float) -> None:
        """Streams get `grace` seconds to end by themselves."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace)

    def _add_stream(self, service: str, method: str, handler: Callable[..., Awaitable[None]]) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method: grpc.stream_stream_rpc_method_handler(handler)
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    async def _serve_inference(self, _requests: object, context: ServerContext) -> None:
        await authorise(context, self._tls, (ROUTER,))
        if self._inference is None:
            await turn_away(context, grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        await guarded(context, "router", self._errors, self._inference(context))

    async def _serve_link(self, _requests: object, context: ServerContext) -> None:
        await authorise(context, self._tls, ("prefill",))
        if self._inference is None:
            await turn_away(context, grpc.StatusCode.UNAVAILABLE, "the model is being loaded")
        if self._link is None:
            await turn_away(context, grpc.StatusCode.UNIMPLEMENTED, "this worker reserves nothing: it does not decode")
        await guarded(context, "prefill", self._errors, self._link(context))
