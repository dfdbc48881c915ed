"""gRPC calls of an operator: the operating system's user, with the scope `operations`."""

import getpass
import os
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc_status import rpc_status

from chassis.access import OPERATIONS
from chassis.errors import HubError, InvalidRequest, OutcomeNotKnown, ServiceUnavailable
from chassis.rpc_client import channel_target, client_tls
from chassis.settings import HubSettings
from chassis.status import from_rpc_error
from chassis.tls import channel_credentials
from chassis.tokens import TokenSigner

Response = TypeVar("Response")

TOKEN_SECONDS = 300
#: A redrive of everything writes many rows.
CALL_SECONDS = 60.0
#: gRPC's words for an address at which nobody listens, and for a name that has none.
NOBODY_THERE = ("Connection refused", "errors resolving", "DNS resolution failed")
#: Its words before anything was sent.
NOT_CONNECTED = "failed to connect"
NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]


class OperatorClient:
    """A channel to one service of the hub, at the first of its addresses that answers; leaving the `with` closes it."""

    def __init__(self, settings: HubSettings, service: str) -> None:
        self._service = service
        self._url = settings.url_of(service)
        self.channel = _channel(settings, self._url)
        signer = TokenSigner(settings.effective_service_key, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
        token = signer.sign(subject=operator_name(), scopes=[OPERATIONS], seconds=TOKEN_SECONDS)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.channel.close()

    def call(
        self, method: "grpc.UnaryUnaryMultiCallable[Any, Response]", request: Any, *, when_lost: str = "ask again"
    ) -> Response:
        """Call a method of a stub made on `channel`; `when_lost` says what to do when no answer came.

        Raises: HubError in one line; OutcomeNotKnown of it when the call may have done something all the same.
        """
        try:
            return method(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._translate(error, when_lost) from error

    def _translate(self, error: grpc.RpcError, when_lost: str) -> HubError:
        call: Any = error  # what a stub raises is a grpc.Call as well
        if rpc_status.from_call(call) is None and call.code() in NO_ANSWER:
            return self._without_answer(call.details() or "", when_lost)
        translated = from_rpc_error(call)
        if isinstance(translated, InvalidRequest) and translated.violations:
            faults = "; ".join(f"{violation.pointer}: {violation.detail}" for violation in translated.violations)
            return HubError(f"{translated.message} ({faults})")
        return translated

    def _without_answer(self, details: str, when_lost: str) -> HubError:
        """What is known of a call that no service has answered."""
        if any(words in details for words in NOBODY_THERE):
            return ServiceUnavailable(
                f"The hub's {self._service} is not running at {self._url}; start the hub with `make run` or `hub up`"
            )
        if details.startswith(NOT_CONNECTED):
            return ServiceUnavailable(
                f"What listens at {self._url} does not take the connection; nothing was sent; "
                f"check that it is the hub's {self._service}, and HUB_TLS_*"
            )
        return OutcomeNotKnown(f"The call to the hub's {self._service} broke off: the answer was lost; {when_lost}")


def _channel(settings: HubSettings, url: str) -> grpc.Channel:
    target, first = channel_target(url)
    tls = client_tls(settings)
    if tls is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    options = [*CHANNEL_OPTIONS, *tls.options(first)]
    return grpc.secure_channel(target, channel_credentials(tls.files.current), options=options)


def operator_name() -> str:
    """The name that the history keeps of whoever runs this command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid-{os.getuid()}"
