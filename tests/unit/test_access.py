"""Who may do what: the table is complete, and a caller is held to its partner."""

from pathlib import Path

import pytest

from chassis.access import RPC_SCOPES, SCOPES, Caller
from chassis.errors import InvalidRequest, PermissionDenied
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.intake.v1 import dead_letters_pb2, intake_pb2, lifecycle_pb2
from integrationhub.orchestrator.v1 import orchestrator_pb2

FILES = (intake_pb2, lifecycle_pb2, dead_letters_pb2, adapter_pb2, orchestrator_pb2)


def caller(*scopes: str, partner_id: str = "acme") -> Caller:
    return Caller(subject="client-1", partner_id=partner_id, scopes=frozenset(scopes), expires_at=0)


def test_the_table_holds_every_method_of_the_contract_and_no_other() -> None:
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    assert set(RPC_SCOPES) == methods


def test_no_contract_file_is_left_out() -> None:
    protos = (Path(__file__).resolve().parents[2] / "protos").rglob("*.proto")
    with_services = {path.stem for path in protos if "\nservice " in path.read_text(encoding="utf-8")}

    assert with_services == {Path(file.DESCRIPTOR.name).stem for file in FILES}


@pytest.mark.parametrize("method", RPC_SCOPES)
def test_every_method_needs_a_known_scope(method: str) -> None:
    assert RPC_SCOPES[method]
    assert set(SCOPES) >= RPC_SCOPES[method]


@pytest.mark.parametrize("method", [method for method in RPC_SCOPES if "IntakeService" not in method])
def test_a_partners_scopes_open_the_public_door_only(method: str) -> None:
    with pytest.raises(PermissionDenied):
        caller("requests:write", "requests:read").require(RPC_SCOPES[method])


def test_any_of_the_scopes_opens() -> None:
    caller("operations").require(frozenset({"lifecycle", "operations"}))


def test_a_refusal_names_the_scopes_that_would_open() -> None:
    with pytest.raises(PermissionDenied) as caught:
        caller().require(frozenset({"b", "a"}))

    assert caught.value.metadata == {"scope": "a or b"}


@pytest.mark.parametrize("named", ["", "acme"])
def test_a_caller_acts_for_its_own_partner(named: str) -> None:
    assert caller().act_for(named) == "acme"


@pytest.mark.parametrize("named", ["brix", "ACME", "acme ", "\x00"])
def test_a_caller_may_not_name_another_partner(named: str) -> None:
    with pytest.raises(PermissionDenied):
        caller("requests:write", "operations", "lifecycle").act_for(named)


def test_a_service_that_may_act_for_partners_names_one() -> None:
    assert caller("act-for-partner").act_for("brix") == "brix"


@pytest.mark.parametrize("named", ["a\x00b", "a\nb", "x" * 256, "\u202eacme", "\u200b"])
def test_a_partner_must_have_a_name_that_can_be_stored_and_shown(named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        caller("act-for-partner").act_for(named)

    assert [violation.pointer for violation in caught.value.violations] == ["/partnerId"]
