"""`hub config` shows where everything is and no secret, however it was written."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from chassis.settings import HubSettings
from console.__main__ import app
from console.config_command import mask
from console.configuration import environment_of, unknown_variables


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*unknown_variables(), *environment_of(HubSettings())]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def hub(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="hub")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://hub@db/hub", "postgresql://hub@db/hub"),
        ("postgresql+psycopg://hub:a:b@db/hub", "postgresql+psycopg://hub:***@db/hub"),
        ("redis://:p%40ss@redis:6379/0", "redis://:***@redis:6379/0"),
        ("postgresql://db/hub?user=x&password=y", "postgresql://db/hub?user=x&password=***"),
        ("sqlite:////home/hub.sqlite3", "sqlite:////home/hub.sqlite3"),
        ("postgresql://hub:x@db/hub?application_name=a@b", "postgresql://hub:***@db/hub?application_name=a@b"),
        ("https://issuer:8443/keys,https://issuer/keys", "https://issuer:8443/keys,https://issuer/keys"),
    ],
)
def test_masks_the_password_of_a_url_and_nothing_else(url: str, masked: str) -> None:
    assert mask(url) == masked


@pytest.mark.parametrize("password", ["Zm9v/YmFy", "Zm9v?YmFy", "Zm9v#YmFy", "Zm9v:YmFy", "Zm9v@YmFy", "Zm9v@Ym/Fy"])
def test_masks_all_of_a_password_that_is_not_percent_encoded(password: str) -> None:
    assert mask(f"postgresql://hub:{password}@db.example/hub") == "postgresql://hub:***@db.example/hub"
    assert mask(f"redis://:{password}@redis.example:6379/0") == "redis://:***@redis.example:6379/0"
    assert mask(f"postgresql://db/hub?password={password}&user=x") == "postgresql://db/hub?password=***&user=x"


@pytest.mark.parametrize("by_file", [False, True])
def test_config_masks_what_the_engine_takes_for_the_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, by_file: bool
) -> None:
    url = "postgresql://hub:Zm9v/YmFyX3NlY3JldA@db.example/hub"
    (tmp_path / "url").write_text(url)
    monkeypatch.setenv("HUB_DATABASE_URL", f"file:{tmp_path / 'url'}" if by_file else url)

    password = sa.make_url(url).password

    assert password == "Zm9v/YmFyX3NlY3JldA"
    for output in (hub("config").output, hub("config", "--json").output):
        assert password not in output
        assert "postgresql://hub:***@db.example/hub" in output


@pytest.mark.parametrize(
    ("written", "masked"),
    [
        ("host=db user=hub password=s3cret dbname=hub", "host=db user=hub password=*** dbname=hub"),
        ("password = 's3 \\' cret' host=db", "password = *** host=db"),
        ("host=db sslkey=/keys/client.pem sslpassword=s3cret", "host=db sslkey=/keys/client.pem sslpassword=***"),
        ("redis://s3cret@cache:6379/0", "redis://***@cache:6379/0"),
        ("rediss://s3/cr@et@cache:6379/0", "rediss://***@cache:6379/0"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("https://s3cret@issuer/keys", "https://***@issuer/keys"),
        ("https://issuer/keys?api_key=s3cret", "https://issuer/keys?api_key=***"),
        (
            "https://issuer/keys?a=b&access_token=s3cret&X-API-Key=s3cret",
            "https://issuer/keys?a=b&access_token=***&X-API-Key=***",
        ),
        ("/orders?key={id}&token_type=x", "/orders?key={id}&token_type=x"),
        ("/orders?key={id}&api_key=s3cret", "/orders?key={id}&api_key=***"),
    ],
)
def test_masks_a_secret_in_whatever_form_people_write_it(written: str, masked: str) -> None:
    assert mask(written) == masked


@pytest.mark.parametrize("variable", ["HUB_PAYLOAD_KEYS", "HUB_SERVICE_KEY"])
def test_config_never_shows_keys_that_were_written_out(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, '{"current": "a", "keys": {"a": "geheim"}}')

    for output in (hub("config").output, hub("config", "--json").output):
        assert "geheim" not in output
    assert json.loads(hub("config", "--json").stdout)["settings"][variable]["value"] == "***"


@pytest.mark.parametrize(
    ("reference", "shown"), [("env:RING", "env:RING"), ("file:r", "file:r"), ("", ""), ("Z2Vo", "***")]
)
def test_config_shows_where_the_key_ring_is(monkeypatch: pytest.MonkeyPatch, reference: str, shown: str) -> None:
    monkeypatch.setenv("HUB_PAYLOAD_KEYS", reference)

    assert json.loads(hub("config", "--json").stdout)["settings"]["HUB_PAYLOAD_KEYS"]["value"] == shown


def test_config_masks_a_secret_in_the_address_of_a_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "targets.toml").write_text(
        '[targets.SAP]\nadapter = "http_json"\nbase_url = "https://sap"\nlookup = "/orders?key={id}&api_key=geheim"\n'
    )
    monkeypatch.setenv("HUB_TARGETS", str(tmp_path / "targets.toml"))

    for output in (hub("config").output, hub("config", "--json").output):
        assert "geheim" not in output
        assert "/orders?key={id}&api_key=***" in output
