"""Partners never meet: whatever many of them do, in any order, each sees, lists and changes its own requests alone."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.testing import TestKeys
from integrationhub.intake.v1 import intake_pb2 as pb
from tests.intake import IntakeUnderTest, Metadata, new_request, read_refusal, running_intake

PARTNERS = tuple(f"partner-{number}" for number in range(8))
EXTERNAL_IDS = tuple(f"E-{number}" for number in range(4))

partner = st.sampled_from(PARTNERS)
external_id = st.sampled_from(EXTERNAL_IDS)
#: Which of the requests there are; beyond the last one it is an id that nobody has.
place = st.integers(0, 40)
call = st.one_of(
    st.tuples(st.just("create"), partner, external_id),
    st.tuples(st.just("batch"), st.lists(st.tuples(partner, external_id), min_size=1, max_size=6)),
    st.tuples(st.sampled_from(["get", "history", "cancel"]), partner, place),
    st.tuples(st.just("list"), partner, st.one_of(st.just(""), external_id)),
    st.tuples(st.just("cursor"), partner, partner),
)


@dataclass(kw_only=True)
class Story:
    """What one run of random calls has stored, and the names that keep runs apart."""

    hub: IntakeUnderTest
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    owners: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)

    def name(self, partner_name: str) -> str:
        return f"{partner_name}-{self.run}"

    def metadata(self, partner_name: str) -> Metadata:
        return self.hub.partner(self.name(partner_name))

    def id_at(self, position: int) -> str:
        ids = list(self.owners)
        return ids[position] if position < len(ids) else str(uuid.UUID(int=position))

    def stored(self, request: pb.IntegrationRequest, owner: str, key: str) -> None:
        assert request.partner_id == self.name(owner)
        assert (owner, key) not in self.keys
        self.owners[request.id] = owner
        self.keys[owner, key] = request.id

    async def create(self, owner: str, key: str) -> None:
        try:
            answer = await self.hub.requests.CreateIntegrationRequest(new_request(key), metadata=self.metadata(owner))
        except grpc.aio.AioRpcError as error:
            refusal = read_refusal(error)
            assert (refusal.reason, refusal.resource) == ("DUPLICATE_EXTERNAL_ID", self.keys[owner, key])
        else:
            self.stored(answer.integration_request, owner, key)

    async def batch(self, items: list[tuple[str, str]]) -> None:
        drafts = [new_request(key, partner_id=self.name(owner)) for owner, key in items]
        answer = await self.hub.requests.BatchCreateIntegrationRequests(
            pb.BatchCreateIntegrationRequestsRequest(requests=drafts), metadata=self.hub.gateway
        )
        for (owner, key), result in zip(items, answer.results, strict=True):
            if result.WhichOneof("result") == "integration_request":
                self.stored(result.integration_request, owner, key)
            else:
                assert self.keys[owner, key] in result.error.message

    async def get(self, asker: str, position: int) -> None:
        request_id = self.id_at(position)
        wanted = pb.GetIntegrationRequestRequest(id=request_id)
        try:
            answer = await self.hub.requests.GetIntegrationRequest(wanted, metadata=self.metadata(asker))
        except grpc.aio.AioRpcError as error:
            self._is_as_absent_as_any(error, asker, request_id)
        else:
            assert self.owners[request_id] == asker
            assert answer.integration_request.partner_id == self.name(asker)

    async def history(self, asker: str, position: int) -> None:
        request_id = self.id_at(position)
        wanted = pb.ListIntegrationRequestHistoryRequest(id=request_id)
        try:
            await self.hub.requests.ListIntegrationRequestHistory(wanted, metadata=self.metadata(asker))
        except grpc.aio.AioRpcError as error:
            self._is_as_absent_as_any(error, asker, request_id)
        else:
            assert self.owners[request_id] == asker

    async def cancel(self, asker: str, position: int) -> None:
        request_id = self.id_at(position)
        wanted = pb.CancelIntegrationRequestRequest(id=request_id)
        try:
            await self.hub.requests.CancelIntegrationRequest(wanted, metadata=self.metadata(asker))
        except grpc.aio.AioRpcError as error:
            if read_refusal(error).reason == "NOT_CANCELLABLE":  # it is cancelled already
                assert self.owners[request_id] == asker
            else:
                self._is_as_absent_as_any(error, asker, request_id)
        else:
            assert self.owners[request_id] == asker

    async def list(self, asker: str, key: str) -> None:
        seen, token = [], ""
        while True:
            wanted = pb.ListIntegrationRequestsRequest(external_id=key, page_size=2, page_token=token)
            page = await self.hub.requests.ListIntegrationRequests(wanted, metadata=self.metadata(asker))
            seen += [request.id for request in page.integration_requests]
            token = page.next_page_token
            if not token:
                break
        own = {self.keys[owner, each] for owner, each in self.keys if owner == asker and key in ("", each)}
        assert (set(seen), len(seen)) == (own, len(own))

    async def cursor(self, owner: str, thief: str) -> None:
        first = pb.ListIntegrationRequestsRequest(page_size=1)
        page = await self.hub.requests.ListIntegrationRequests(first, metadata=self.metadata(owner))
        if not page.next_page_token or owner == thief:
            return
        stolen = pb.ListIntegrationRequestsRequest(page_size=1, page_token=page.next_page_token)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.hub.requests.ListIntegrationRequests(stolen, metadata=self.metadata(thief))
        assert read_refusal(refused.value).code == "INVALID_ARGUMENT"

    def _is_as_absent_as_any(self, error: grpc.aio.AioRpcError, asker: str, request_id: str) -> None:
        refusal = read_refusal(error)
        assert self.owners.get(request_id) != asker
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "INTEGRATION_REQUEST_NOT_FOUND")
        assert refusal.message == f"There is no integration request {request_id}; check the id."


@pytest.fixture(scope="module")
def running(
    migrated_sqlite: Path, keys: TestKeys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[asyncio.Runner, IntakeUnderTest]]:
    """An intake for all the runs, in a loop of its own."""
    file = tmp_path_factory.mktemp("isolation") / "hub.sqlite3"
    file.write_bytes(migrated_sqlite.read_bytes())
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        intake = running_intake(f"sqlite:///{file}", keys, maximum=10**6, maximum_per_partner=10**6)
        yield runner, runner.run(stack.enter_async_context(intake))
        runner.run(stack.aclose())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=st.lists(call, min_size=5, max_size=40))
def test_no_partner_ever_meets_another(
    running: tuple[asyncio.Runner, IntakeUnderTest], calls: list[tuple[object, ...]]
) -> None:
    runner, hub = running
    story = Story(hub=hub)

    async def tell() -> None:
        for name, *arguments in calls:
            await getattr(story, str(name))(*arguments)
        for owner in PARTNERS:
            await story.list(owner, "")

    runner.run(tell())
