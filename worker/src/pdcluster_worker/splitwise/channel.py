"""Servers and channels with the settings that all of pdcluster's gRPC shares."""

import grpc
import grpc.aio

from pdcluster_worker.errors import ConfigError
from pdcluster_worker.splitwise.limits import MAX_MESSAGE_BYTES
from pdcluster_worker.splitwise.tls import TLSIdentity

Option = tuple[str, int | str]

KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
MIN_PING_INTERVAL_MS = 5_000
CONNECT_BACKOFF_MS = 100
MAX_CONNECT_BACKOFF_MS = 1_000

INFERENCE_STREAM = "/pdcluster.v1.Inference/Stream"
SPLITWISE_LINK = "/pdcluster.v1.Splitwise/Link"


def _shared_options(max_message_bytes: int) -> list[Option]:
    """Keepalive finds a peer that is stopped or unreachable though its connection stands."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def make_server(max_message_bytes: int = MAX_MESSAGE_BYTES) -> grpc.aio.Server:
    """To be made on the event loop that runs it. A port that is taken is an error, never shared."""
    options: list[Option] = [
        *_shared_options(max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ]
    return grpc.aio.server(options=options)


def bind(server: grpc.aio.Server, host: str, port: int, identity: TLSIdentity | None) -> int:
    """Returns the port (that the system chose for 0). Raises ConfigError when it cannot be had."""
    address = f"{host}:{port}"
    try:
        if identity is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, identity.server_credentials())
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}: the port is in use or the address is not here") from error


def open_channel(
    address: str, role: str, identity: TLSIdentity | None, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> grpc.aio.Channel:
    """One channel to a server that must be of `role`. Make a new one for every new connection: certificates rotate."""
    options: list[Option] = [
        *_shared_options(max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", CONNECT_BACKOFF_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_BACKOFF_MS),
        ("grpc.max_reconnect_backoff_ms", MAX_CONNECT_BACKOFF_MS),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
    ]
    if identity is None:
        return grpc.aio.insecure_channel(address, options=options)
    options.append(("grpc.ssl_target_name_override", identity.target_name(role)))
    return grpc.aio.secure_channel(address, identity.channel_credentials(), options=options)
