"""The targets file at start: every mistake is refused with the target and the key that hold it."""

import importlib
import pkgutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import adapter_service.adapters
from adapter_service.attempts import span_name
from adapter_service.registry import build_systems
from chassis.errors import ConfigurationError
from chassis.targets import load_targets

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "targets.toml"
PROTHEUS = 'adapter = "totvs_protheus"\nbase_url = "http://127.0.0.1:1"\n'
HTTP_JSON = 'adapter = "http_json"\nbase_url = "http://127.0.0.1:1"\n'


def build(folder: Path, table: str) -> None:
    file = folder / "targets.toml"
    file.write_text(f"[targets.Erp]\n{table}")
    build_systems(load_targets(file))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (PROTHEUS.replace("totvs_protheus", "nowhere"), "adapter 'nowhere'"),
        (PROTHEUS.replace("totvs_protheus", "base"), "adapter 'base'"),
        (PROTHEUS.replace("totvs_protheus", "../auth"), "adapter '../auth'"),
        (PROTHEUS + "pathh = '/x'", "pathh"),
        (PROTHEUS + "path = 7", "path"),
        (PROTHEUS + "path = 'x'", "path"),
        (PROTHEUS + "path = '/x?y=1'", "path"),
        (PROTHEUS + "key_field = ''", "key_field"),
        (PROTHEUS + "key_field = 'a b'", "key_field"),
        (PROTHEUS + 'tenant_id = "T1\\r\\nX: 1"', "tenant_id"),
        (PROTHEUS + "tenant_id = 'ção'", "tenant_id"),
        (PROTHEUS.replace("127.0.0.1:1", "127.0.0.1:1/?a=b"), "base_url"),
        (HTTP_JSON + "method = 'GET'", "method"),
        (HTTP_JSON + "lookup = '/orders'", "lookup"),
        (HTTP_JSON + "lookup = '/orders?key={key}'", "lookup"),
        (HTTP_JSON + "lookup = '/orders?key={id'", "lookup"),
        (HTTP_JSON + "lookup = 'orders?key={id}'", "lookup"),
        (HTTP_JSON + "lookup = '/orders?key={id} x'", "lookup"),
        (HTTP_JSON + "auth = { kind = 'bearer', token = 'env:HUB_TEST_NO_SUCH' }", "HUB_TEST_NO_SUCH"),
        (HTTP_JSON + "auth = { kind = 'bearer', token = 'file:empty' }", "file:empty"),
        (HTTP_JSON + "auth = { kind = 'bearer', token = 'file:letters' }", "file:letters"),
        (HTTP_JSON + "auth = { kind = 'basic', username = 'u', password = 'file:no-such' }", "no-such"),
    ],
)
def test_a_mistake_is_refused_by_name(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "letters").write_text("não")

    with pytest.raises(ConfigurationError) as raised:
        build(tmp_path, table)

    assert "targets.Erp" in raised.value.message
    assert said in raised.value.message


def test_a_refusal_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TEST_TOKEN", "s3cret\nsecond line")

    with pytest.raises(ConfigurationError) as raised:
        build(tmp_path, HTTP_JSON + "auth = { kind = 'bearer', token = 'env:HUB_TEST_TOKEN' }")

    assert "s3cret" not in str(raised.value)


def test_every_adapter_has_a_shipped_target_and_with_it_the_contract_suite() -> None:
    modules = [info.name for info in pkgutil.iter_modules(adapter_service.adapters.__path__)]
    adapters = {
        name for name in modules if hasattr(importlib.import_module(f"adapter_service.adapters.{name}"), "build")
    }

    assert adapters == {target.adapter for target in load_targets(SHIPPED).by_name.values()}


def test_the_shipped_targets_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTHEUS_TOKEN", "a-token")

    systems = build_systems(load_targets(SHIPPED))

    assert [system.adapter.supports_lookup for system in systems.values()] == [True, True]


@pytest.mark.parametrize(
    ("target", "span"),
    [
        ("TotvsProtheus", "http.external.totvs_protheus"),
        ("OrdersApi", "http.external.orders_api"),
        ("SAP", "http.external.sap"),
        ("erp.br/01:x-y", "http.external.erp_br_01_x_y"),
    ],
)
def test_a_span_is_named_after_its_target(target: str, span: str) -> None:
    assert span_name(target) == span


@pytest.mark.parametrize(
    ("base_url", "warnings"),
    [
        ("http://erp.example", ["Erp"]),
        ("http://10.0.0.7:8080", ["Erp"]),
        ("https://erp.example", []),
        ("http://127.0.0.1:1", []),
        ("http://[::1]:1", []),
        ("http://localhost", []),
    ],
)
def test_a_target_that_is_called_in_plain_text_is_said(tmp_path: Path, base_url: str, warnings: list[str]) -> None:
    with capture_logs() as lines:
        build(tmp_path, HTTP_JSON.replace("http://127.0.0.1:1", base_url))

    assert [line["target"] for line in lines if line["event"] == "Target is not encrypted"] == warnings
