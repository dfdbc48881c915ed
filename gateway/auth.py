"""Who calls: the bearer token of a request, checked before anything of its body is read."""

from starlette.types import Scope

from chassis.access import Caller
from chassis.errors import ConfigurationError, ServiceUnavailable
from chassis.logs import get_logger
from chassis.tokens import TokenVerifier
from gateway.headers import headers_of
from gateway.problems import MalformedRequest, TokenMissing

log = get_logger()


async def authenticate(verifier: TokenVerifier, scope: Scope, scopes: frozenset[str]) -> Caller:
    """Verify the token of a call and that it opens the route.

    Raises: Unauthenticated; PermissionDenied; MalformedRequest for two tokens; ServiceUnavailable when there are no
    keys to check with, KeySetUnavailable when one set of them is missing.
    """
    values = headers_of(scope).get(b"authorization")
    if not values:
        raise TokenMissing("Send a token: Authorization: Bearer <JWT>.")
    if len(values) > 1:
        raise MalformedRequest("There are two Authorization headers; send one.")
    try:
        caller = await verifier.verify_header(str(values[0], "latin-1"))
    except ConfigurationError as error:
        log.error("Tokens cannot be checked", reason=error.reason, detail=error.message)
        raise ServiceUnavailable("Tokens cannot be checked now; repeat the call in a moment.") from error
    caller.require(scopes)
    return caller
