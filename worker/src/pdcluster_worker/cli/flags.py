"""Flags that worker and router share, and how their values are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from pdcluster_worker.config import TLSFiles
from pdcluster_worker.errors import ConfigError

ModelPath = Annotated[Path, typer.Option(help="checkpoint folder, or one .gguf file")]
ModelName = Annotated[str, typer.Option(help="the name that clients ask for")]
Revision = Annotated[str, typer.Option(help="only workers of one revision pair")]
Host = Annotated[str, typer.Option(help="address to listen on")]
Cluster = Annotated[str, typer.Option(help="NAME.NAMESPACE of the PDCluster, as certificates name it")]
TLSCert = Annotated[Path | None, typer.Option(help="PEM certificate chain; read again when it changes")]
TLSKey = Annotated[Path | None, typer.Option(help="PEM key")]
TLSCa = Annotated[Path | None, typer.Option(help="PEM certificates of those who sign peers")]
TraceEndpoint = Annotated[str, typer.Option(help="OTLP/gRPC endpoint for traces")]
MaxMessageBytes = Annotated[int, typer.Option(min=1 << 20, help="largest gRPC message accepted")]


S = TypeVar("S", bound=msgspec.Struct)


def settings(kind: type[S], given: Mapping[str, object]) -> S:
    """Flags are named as the fields that they set; fields without a flag keep their defaults."""
    return kind(**{name: given[name] for name in kind.__struct_fields__ if name in given})


def tls_files(cert: Path | None, key: Path | None, ca: Path | None) -> TLSFiles | None:
    """All three or none."""
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        raise ConfigError("--tls-cert, --tls-key and --tls-ca go together: all three or none")
    return TLSFiles(cert=cert, key=key, ca=ca)


def cores(text: str) -> tuple[int, ...]:
    """ "0,1" as core numbers."""
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--cpu-affinity: {text!r} is no list of core numbers") from None
    if any(number < 0 for number in numbers):
        raise ConfigError(f"--cpu-affinity: {text!r} is no list of core numbers")
    return numbers


def existing(path: Path, flag: str) -> None:
    if not path.exists():
        raise ConfigError(f"{flag}: {path} does not exist")
