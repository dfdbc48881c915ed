"""TLS on the hub's own links: one certificate per process for gRPC, read again when its files change.

A pair of files that does not fit together (one is being replaced) is not taken; the last good one stays. Which link
must be encrypted is settled in chassis.settings, TLS of Redis and PostgreSQL in their URLs.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from chassis.errors import ConfigurationError
from chassis.logs import get_logger
from chassis.settings import HubSettings

log = get_logger()

#: A changed file is seen after this long at most; connections that stand are not touched.
CHECK_SECONDS = 1.0
#: Calls on a channel whose certificate was replaced may end on it within this time: longer than a target's time-out may
#: well be, since a call that is cut off here is one whose outcome nobody learns.
OLD_CHANNEL_SECONDS = 3600.0

Channel = grpc.aio.Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """PEM texts as they were read together."""

    certificate: bytes
    key: bytes
    #: None = the machine's own authorities.
    ca: bytes | None


class TlsFiles:
    """The certificate chain, its key and the authority that others are checked against."""

    def __init__(self, *, certificate: Path, key: Path, ca: Path | None = None) -> None:
        """Read them. Raises: ConfigurationError when they cannot be read or do not fit together."""
        self._paths = [certificate, key, *([ca] if ca is not None else [])]
        self._seen = self._stamp()
        self._looks_again_at = time.monotonic() + CHECK_SECONDS
        try:
            self.current, self._server_context = self._read()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"The certificate {certificate} and its key {key} cannot be used "
                f"({getattr(error, 'reason', None) or error.strerror}); correct HUB_TLS_* or HUB_GATEWAY_TLS_*"
            ) from error

    def reload(self) -> bool:
        """Read the files again if they have changed; whether `current` is new."""
        now = time.monotonic()
        if now < self._looks_again_at:
            return False
        self._looks_again_at = now + CHECK_SECONDS
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        try:
            self.current, self._server_context = self._read()
        except (OSError, ssl.SSLError) as error:  # half of it is written; the next look tells
            log.warning("Certificate cannot be read", path=str(self._paths[0]), reason=type(error).__name__)
            return False
        self._seen = stamp
        log.info("Certificate read again", path=str(self._paths[0]))
        return True

    def server_context(self) -> ssl.SSLContext:
        """A context for a server, TLS 1.2 and newer; each handshake is made with the files as they were read last."""
        listening = self._server_context
        listening.sni_callback = self._use_current  # for every handshake, also of a client that names no server
        return listening

    def _use_current(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        connection.context = self._server_context

    def _read(self) -> tuple[Material, ssl.SSLContext]:
        # a new one for each pair: a context that loads a second keeps the first too if its key is of another kind
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._paths[0], self._paths[1])  # checks that the two fit
        texts = [path.read_bytes() for path in self._paths]
        return Material(certificate=texts[0], key=texts[1], ca=texts[2] if len(texts) > 2 else None), context

    def _stamp(self) -> list[tuple[int, int]]:
        """What changes with the files; nothing for one that is missing."""
        stamps = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError:
                continue
            stamps.append((status.st_mtime_ns, status.st_ino))
        return stamps


def tls_files(settings: HubSettings) -> TlsFiles | None:
    """The files that the settings name for gRPC; None = plain text. Raises: ConfigurationError."""
    if not settings.tls_certificate:
        return None
    ca = Path(settings.tls_ca) if settings.tls_ca else None
    if settings.tls_client_auth and ca is None:
        raise ConfigurationError("HUB_TLS_CLIENT_AUTH needs HUB_TLS_CA: the authority of the clients' certificates")
    return TlsFiles(certificate=Path(settings.tls_certificate), key=Path(settings.tls_key), ca=ca)


def gateway_tls_files(settings: HubSettings) -> TlsFiles | None:
    """The files that the settings name for HTTPS; None = plain text. Raises: ConfigurationError."""
    if not settings.gateway_tls_certificate:
        return None
    return TlsFiles(certificate=Path(settings.gateway_tls_certificate), key=Path(settings.gateway_tls_key))


def server_tls(settings: HubSettings) -> grpc.ServerCredentials | None:
    """The credentials of a gRPC server as the settings have it; None = plain text. Raises: ConfigurationError."""
    files = tls_files(settings)
    return None if files is None else server_credentials(files, client_auth=settings.tls_client_auth)


def server_credentials(files: TlsFiles, *, client_auth: bool) -> grpc.ServerCredentials:
    """Credentials of a gRPC server that take up new files with the next handshake."""
    first = _configuration(files.current)

    def fetch() -> Any:
        return _configuration(files.current) if files.reload() else None

    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=client_auth)


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    """Credentials of a gRPC client; it shows its certificate to a server that asks for one."""
    return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)


class ReloadingChannel:
    """A gRPC channel that is replaced when the certificate is; stubs made on it stay good.

    It offers what the hub's stubs and clients use of grpc.aio.Channel.
    """

    def __init__(self, files: TlsFiles, connect: Callable[[grpc.ChannelCredentials], Channel]) -> None:
        self._files = files
        self._connect = connect
        self._channel = connect(channel_credentials(files.current))
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """Make a callable for one method (grpc.aio.Channel)."""
        return self._callable("unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Make a callable for one method (grpc.aio.Channel)."""
        return self._callable("unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """Make a callable for one method (grpc.aio.Channel)."""
        return self._callable("stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """Make a callable for one method (grpc.aio.Channel)."""
        return self._callable("stream_stream", arguments, options)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        return self._current().get_state(try_to_connect)

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        await self._current().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        for task in self._closing:
            task.cancel()
        await self._channel.close(grace)

    def _callable(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        made: list[Any] = [None, None]

        def call(*call_arguments: Any, **call_options: Any) -> Any:
            channel = self._current()
            if made[0] is not channel:
                made[:] = channel, getattr(channel, kind)(*arguments, **options)
            return made[1](*call_arguments, **call_options)

        return call

    def _current(self) -> Channel:
        if self._files.reload():
            old, self._channel = self._channel, self._connect(channel_credentials(self._files.current))
            task = asyncio.get_running_loop().create_task(old.close(OLD_CHANNEL_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return self._channel


def _configuration(material: Material) -> Any:
    pair = [(material.key, material.certificate)]
    return grpc.ssl_server_certificate_configuration(pair, material.ca)
