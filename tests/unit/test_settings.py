"""Settings: safe defaults, what HUB_* may say, and a clear word for what it may not."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from chassis.errors import ConfigurationError
from chassis.secret_refs import check_secret_reference, read_secret
from chassis.settings import HubSettings, read_settings, split_address


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # a hub that has run in this folder has left its Redis password there
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_design() -> None:
    settings = HubSettings()

    assert settings.effective_database_url == "sqlite:///.hub/hub.sqlite3"
    assert settings.effective_redis_url == "redis://127.0.0.1:6390/0"
    assert settings.effective_jwks == ".hub/keys/jwks.json"
    assert settings.effective_service_key == Path(".hub/keys/private.json")
    assert [settings.address_of(name) for name in ("gateway", "intake", "orchestrator", "adapter", "simulator")] == [
        "127.0.0.1:8080",
        "127.0.0.1:50051",
        "127.0.0.1:50052",
        "127.0.0.1:50053",
        "127.0.0.1:8090",
    ]
    assert [settings.metrics_address_of(name)[-4:] for name in ("gateway", "intake", "orchestrator", "adapter")] == [
        "9101",
        "9102",
        "9103",
        "9104",
    ]
    assert (settings.partner_rate_per_minute, settings.max_backlog, settings.max_backlog_per_partner) == (
        600,
        1_000_000,
        200_000,
    )
    assert settings.allow_plaintext is False


def test_every_field_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_STATE_DIR", "/srv/hub")
    monkeypatch.setenv("HUB_DATABASE_URL", "postgresql://h/db")
    monkeypatch.setenv("HUB_REDIS_URL", "redis://r:1/2")
    monkeypatch.setenv("HUB_MAX_BACKLOG", "7")
    monkeypatch.setenv("HUB_INTAKE_URL", "a:1,b:2")

    settings = HubSettings()

    assert settings.effective_database_url == "postgresql://h/db"
    assert settings.effective_redis_url == "redis://r:1/2"
    assert settings.effective_jwks == "/srv/hub/keys/jwks.json"
    assert settings.max_backlog == 7
    assert settings.url_of("intake") == "a:1,b:2"
    assert settings.url_of("adapter") == settings.adapter_address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HUB_REDIS_PORT", "abc"),
        ("HUB_REDIS_PORT", "0"),
        ("HUB_REDIS_PORT", "65536"),
        ("HUB_MAX_BACKLOG", "0"),
        ("HUB_PARTNER_RATE_PER_MINUTE", "-1"),
        ("HUB_GRACE_SECONDS", "0"),
        ("HUB_LOG_LEVEL", "loud"),
        ("HUB_LOG_FORMAT", "xml"),
        ("HUB_ALLOW_PLAINTEXT", "perhaps"),
        ("HUB_INTAKE_ADDRESS", "127.0.0.1:1\nHUB_ALLOW_PLAINTEXT=true"),
        ("HUB_JWT_ISSUER", "a\rb"),
    ],
)
def test_a_value_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=name):
        read_settings()


def test_a_bad_value_is_not_repeated_for_it_may_hold_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_DATABASE_URL", "postgresql://hub:hunter2@h/db\n")

    with pytest.raises(ConfigurationError) as caught:
        read_settings()

    assert "hunter2" not in caught.value.message


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_REDIS_PORT", "x")
    monkeypatch.setenv("HUB_LOG_LEVEL", "loud")

    with pytest.raises(ConfigurationError, match=r"HUB_REDIS_PORT.*HUB_LOG_LEVEL"):
        read_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        HubSettings().redis_port = 1  # type: ignore[misc]  # the test is that it is refused


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_a_plain_link_on_this_machine_is_allowed(address: str) -> None:
    HubSettings().check_link(address)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "intake:50051", "localhost.evil.example:1"])
def test_a_plain_link_beyond_this_machine_must_be_asked_for(address: str) -> None:
    with pytest.raises(ConfigurationError, match="HUB_ALLOW_PLAINTEXT"):
        HubSettings().check_link(address)

    HubSettings(allow_plaintext=True).check_link(address)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://hub:Zm9v/YmFy@db.example/hub",
        "postgresql://hub:Zm9v?YmFy@db.example/hub",
        "postgresql://127.0.0.1:x/y@db.example/hub",
        "postgresql://hub:x@127.0.0.1/hub?host=db.example",
        "postgresql://hub:x@127.0.0.1/hub?hostaddr=10.0.0.1",
        "postgresql:///hub?host=127.0.0.1:5432&host=db.example:5432",
        "postgresql://hub:x@db.example/hub?sslmode=verify-full&sslmode=disable",
    ],
)
def test_a_database_is_looked_for_where_its_driver_connects_to(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a loopback address"):
        HubSettings(database_url=url).check_database()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/hub.sqlite3",
        "postgresql://hub:Zm9v/YmFy@127.0.0.1/hub",
        "postgresql://hub:x@db.example/hub?host=127.0.0.1",
        "postgresql://hub:x@[::1]:5433/hub",
        "postgresql://hub:x@/hub?host=/run/postgresql",
        "postgresql:///hub",
        "postgresql://hub:x@db.example/hub?sslmode=verify-full",
    ],
)
def test_a_database_on_this_machine_or_behind_tls_needs_no_leave(url: str) -> None:
    HubSettings(database_url=url).check_database()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis_url_that_cannot_be_read_is_refused_without_its_password(scheme: str) -> None:
    url = f"{scheme}://:Zm9v/YmFy@redis.example:6379/0"

    with pytest.raises(ConfigurationError, match="HUB_REDIS_URL") as refused:
        HubSettings(redis_url=url, allow_plaintext=True).check_redis()

    assert "Zm9v" not in refused.value.message
    assert "%2F" in refused.value.message


@pytest.mark.parametrize(
    ("address", "parts"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("h:65535", ("h", 65535))]
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "h", "h:", ":80", "h:x", "h:-1", "h:65536", "h:\uff18\uff10", "h:80 "])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        split_address(address)


def test_a_secret_is_read_where_its_reference_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_A_TEST", "s3cret")
    (tmp_path / "secret").write_text("s3cret\n")

    assert read_secret("env:TOKEN_OF_A_TEST", tmp_path) == "s3cret"
    assert read_secret("file:secret", tmp_path) == "s3cret"
    assert read_secret(f"file:{tmp_path / 'secret'}", Path("/")) == "s3cret"


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "file:not-there", "hunter2", "", "vault:x"])
def test_a_reference_to_nothing_is_refused_without_repeating_a_secret(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_secret(reference, tmp_path)

    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("charset", ["cp1252", "utf-16"])
def test_a_secret_file_that_is_no_utf8_is_refused_by_name(tmp_path: Path, charset: str) -> None:
    (tmp_path / "secret").write_bytes("senha-ç".encode(charset))

    with pytest.raises(ConfigurationError, match="secret file secret"):
        read_secret("file:secret", tmp_path)


def test_the_urls_of_the_stores_may_be_kept_in_files_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database").write_text("postgresql://hub:hunter2@127.0.0.1/hub\n")
    monkeypatch.setenv("CACHE_URL", "redis://:hunter2@127.0.0.1:6379/0")

    settings = HubSettings(database_url=f"file:{tmp_path / 'database'}", redis_url="env:CACHE_URL")

    assert settings.effective_database_url == "postgresql://hub:hunter2@127.0.0.1/hub"
    assert settings.effective_redis_url == "redis://:hunter2@127.0.0.1:6379/0"
    assert "hunter2" not in repr(settings)


def test_a_secret_must_be_a_reference() -> None:
    check_secret_reference("env:X")
    check_secret_reference("file:/run/secrets/x")
    with pytest.raises(ConfigurationError):
        check_secret_reference("hunter2")
