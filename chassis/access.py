"""Who may do what: the one table of scopes per RPC and per REST route. What is not in it is refused."""

from dataclasses import dataclass
from typing import NamedTuple

from chassis.errors import InvalidRequest, PermissionDenied, SystemNotAllowed, Violation

REQUESTS_WRITE = "requests:write"
REQUESTS_READ = "requests:read"
OPERATIONS = "operations"
LIFECYCLE = "lifecycle"
ACT_FOR_PARTNER = "act-for-partner"
MAX_NAME = 255
SCOPES = (REQUESTS_WRITE, REQUESTS_READ, OPERATIONS, LIFECYCLE, ACT_FOR_PARTNER)

#: Open to everybody: probes and discovery carry no business data.
PUBLIC_RPC_PREFIXES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")

_INTAKE = "/integrationhub.intake.v1.IntakeService/"
_LIFECYCLE = "/integrationhub.intake.v1.LifecycleService/"
_DEAD_LETTERS = "/integrationhub.intake.v1.DeadLetterService/"
_ADAPTER = "/integrationhub.adapter.v1.AdapterService/"
_ORCHESTRATOR = "/integrationhub.orchestrator.v1.OrchestratorService/"

#: RPC → scopes, any one of which opens it.
RPC_SCOPES: dict[str, frozenset[str]] = {
    _INTAKE + "CreateIntegrationRequest": frozenset({REQUESTS_WRITE}),
    _INTAKE + "BatchCreateIntegrationRequests": frozenset({REQUESTS_WRITE}),
    _INTAKE + "CancelIntegrationRequest": frozenset({REQUESTS_WRITE}),
    _INTAKE + "GetIntegrationRequest": frozenset({REQUESTS_READ}),
    _INTAKE + "ListIntegrationRequests": frozenset({REQUESTS_READ}),
    _INTAKE + "ListIntegrationRequestHistory": frozenset({REQUESTS_READ}),
    _LIFECYCLE + "Claim": frozenset({LIFECYCLE}),
    _LIFECYCLE + "Report": frozenset({LIFECYCLE}),
    _LIFECYCLE + "Heartbeat": frozenset({LIFECYCLE}),
    _DEAD_LETTERS + "ListDeadLetters": frozenset({OPERATIONS}),
    _DEAD_LETTERS + "GetDeadLetter": frozenset({OPERATIONS}),
    _DEAD_LETTERS + "RedriveDeadLetters": frozenset({OPERATIONS}),
    _DEAD_LETTERS + "DiscardDeadLetters": frozenset({OPERATIONS}),
    _ADAPTER + "Deliver": frozenset({LIFECYCLE}),
    _ADAPTER + "DeliverBatch": frozenset({LIFECYCLE}),
    _ADAPTER + "Lookup": frozenset({LIFECYCLE}),
    _ADAPTER + "ListTargets": frozenset({LIFECYCLE, OPERATIONS}),
    _ORCHESTRATOR + "GetStatus": frozenset({OPERATIONS}),
}

#: "METHOD route" → scopes, any one of which opens it; None = open to everybody.
ROUTE_SCOPES: dict[str, frozenset[str] | None] = {
    "POST /api/integration-requests": frozenset({REQUESTS_WRITE}),
    "GET /api/integration-requests": frozenset({REQUESTS_READ}),
    "GET /api/integration-requests/{id}": frozenset({REQUESTS_READ}),
    "GET /api/integration-requests/{id}/history": frozenset({REQUESTS_READ}),
    "GET /healthz": None,
    "GET /readyz": None,
    "GET /openapi.json": None,
    "GET /docs": None,
    "GET /docs/{asset}": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerLimits:
    """What a partner's token narrows: the claims `sources`, `targets` (lists of names) and `rate_per_minute`."""

    #: None = every one.
    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    #: Creates per minute; None = the hub's default, 0 = no limit.
    rate_per_minute: int | None = None

    def allow(self, source_system: str, target_system: str) -> bool:
        """Whether the token is for this source and this target."""
        return (self.sources is None or source_system in self.sources) and (
            self.targets is None or target_system in self.targets
        )

    def check_systems(self, source_system: str, target_system: str) -> None:
        """Raises: SystemNotAllowed when the token is not for this source or this target."""
        if self.sources is not None and source_system not in self.sources:
            raise SystemNotAllowed("The token is not for this sourceSystem; ask for one that names it.")
        if self.targets is not None and target_system not in self.targets:
            raise SystemNotAllowed("The token is not for this targetSystem; ask for one that names it.")


NO_LIMITS = PartnerLimits()


class Owner(NamedTuple):
    """Whose requests a call is about, and which of them: those of the systems that the partner's token allows."""

    partner_id: str
    limits: PartnerLimits = NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as its verified token says."""

    subject: str
    partner_id: str
    scopes: frozenset[str]
    #: Seconds since 1970 at which the token ends.
    expires_at: float
    limits: PartnerLimits = NO_LIMITS

    def require(self, scopes: frozenset[str]) -> None:
        """Raises: PermissionDenied when the token has none of `scopes`."""
        if self.scopes.isdisjoint(scopes):
            wanted = " or ".join(sorted(scopes))
            raise PermissionDenied(f"The token needs the scope {wanted}; ask for one that has it.", scope=wanted)

    def act_for(self, partner_id: str) -> str:
        """The partner this call is for: the caller's own, or the one named by a service that may.

        Raises: PermissionDenied when another partner is named without the scope act-for-partner;
        InvalidRequest when that name cannot be one.
        """
        if not partner_id or partner_id == self.partner_id:
            return self.partner_id
        if ACT_FOR_PARTNER not in self.scopes:
            raise PermissionDenied("The token does not allow acting for another partner; leave partner_id empty.")
        if not is_name(partner_id):
            detail = f"must be 1 to {MAX_NAME} printable characters"
            raise InvalidRequest("The partner id cannot be one.", [Violation(pointer="/partnerId", detail=detail)])
        return partner_id

    def owner(self, partner_id: str, limits: PartnerLimits) -> Owner:
        """Whose requests this call is about. A caller's own limits are those of its token, whatever `limits` says.

        Raises: as `act_for`.
        """
        named = self.act_for(partner_id)
        return Owner(partner_id=named, limits=self.limits if named == self.partner_id else limits)


def is_name(text: str) -> bool:
    """Whether a partner or subject may be called so: it is stored, logged and shown as it is."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()
