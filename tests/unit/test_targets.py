"""The targets file: what it may say, and a message that names the target and the key for everything else."""

from pathlib import Path

import pytest

from chassis.errors import ConfigurationError
from chassis.targets import Auth, Target, check_url, load_targets

MINIMAL = '[targets.Sap]\nadapter = "http_json"\nbase_url = "http://127.0.0.1:1"\n'


def load(folder: Path, text: str | bytes) -> dict[str, Target]:
    path = folder / "targets.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_targets(path).by_name


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    return caught.value.message


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    target = load(tmp_path, MINIMAL)["Sap"]

    assert (target.name, target.adapter, target.base_url) == ("Sap", "http_json", "http://127.0.0.1:1")
    assert (target.timeout_seconds, target.concurrency, target.ttl_seconds) == (60, 8, 86_400)
    assert not target.idempotent
    assert (target.rate_per_second, target.on_timeout) == (0, "dead_letter")
    assert (target.auth.kind, target.schemas, target.options) == ("none", {}, {})
    assert target.retry_delays == (2, 4, 8)  # the seed's


def test_the_designs_example_is_read(tmp_path: Path) -> None:
    target = load(
        tmp_path,
        """
        [targets.TotvsProtheus]
        adapter = "totvs_protheus"
        base_url = "https://erp.example/rest"
        auth = { kind = "bearer", token = "env:PROTHEUS_TOKEN" }
        timeout_seconds = 60
        concurrency = 8
        retry = "patient"
        on_timeout = "retry"
        schemas = { SAP = "schemas/sap-order.json" }
        """,
    )["TotvsProtheus"]

    assert list(target.retry_delays) == [30, 120, 600, 3600, 14_400, 43_200]
    assert target.auth == Auth(kind="bearer", token="env:PROTHEUS_TOKEN")
    assert target.schemas == {"SAP": "schemas/sap-order.json"}


def test_the_adapters_own_keys_are_its_options(tmp_path: Path) -> None:
    target = load(tmp_path, MINIMAL + 'path = "/orders"\nnested = { a = 1 }\n')["Sap"]

    assert target.options == {"path": "/orders", "nested": {"a": 1}}


@pytest.mark.parametrize(("retry", "delays"), [("[2, 4, 8]", (2, 4, 8)), ("[0.5]", (0.5,)), ("[]", ())])
def test_a_retry_profile_may_be_a_list(tmp_path: Path, retry: str, delays: tuple[float, ...]) -> None:
    assert load(tmp_path, f"{MINIMAL}retry = {retry}\n")["Sap"].retry_delays == delays


def test_the_files_own_folder_is_where_its_paths_begin(tmp_path: Path) -> None:
    (tmp_path / "targets.toml").write_text(MINIMAL)

    assert load_targets(tmp_path / "targets.toml").folder == tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("timeout_seconds = 0", "timeout_seconds"),
        ("timeout_seconds = -1", "timeout_seconds"),
        ("timeout_seconds = nan", "timeout_seconds"),
        ("timeout_seconds = inf", "timeout_seconds"),
        ('timeout_seconds = "60"', "timeout_seconds"),
        ("ttl_seconds = 0", "ttl_seconds"),
        ("ttl_seconds = nan", "ttl_seconds"),
        ("ttl_seconds = inf", "ttl_seconds"),
        ("concurrency = 0", "concurrency"),
        ("concurrency = 1.5", "concurrency"),
        ("rate_per_second = -1", "rate_per_second"),
        ("rate_per_second = nan", "rate_per_second"),
        ('idempotent = "yes"', "idempotent"),
        ('retry = "eager"', "retry"),
        ("retry = [2, -4]", "retry"),
        ("retry = [nan]", "retry"),
        ("retry = [inf]", "retry"),
        ('retry = ["2"]', "retry"),
        ('on_timeout = "ignore"', "on_timeout"),
        ("schemas = [1]", "schemas"),
        ('auth = { kind = "magic" }', "auth"),
        ('auth = { kind = "bearer" }', "token"),
        ('auth = { kind = "bearer", token = "abc123" }', "env:NAME or file:PATH"),
        ('auth = { kind = "basic", username = "u" }', "password"),
        ('auth = { kind = "basic", username = "u", password = "letters1" }', "env:NAME or file:PATH"),
        ('auth = { kind = "oauth2", client_id = "c" }', "token_url"),
        ('auth = { kind = "oauth2", client_id = "c", token_url = "ftp://x" }', "http"),
        ('auth = { kind = "bearer", token = "env:T", tokne = "x" }', "tokne"),
        ("options = { a = 1 }", "options"),
        ('name = "Other"', "name"),
    ],
)
def test_a_bad_key_is_named_with_its_target(tmp_path: Path, line: str, said: str) -> None:
    message = refusal(tmp_path, f"{MINIMAL}{line}\n")

    assert "targets.Sap" in message
    assert said in message


def test_a_secret_that_is_written_out_is_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, MINIMAL + 'auth = { kind = "bearer", token = "hunter2" }\n')


@pytest.mark.parametrize("key", ["adapter", "base_url"])
def test_what_has_no_default_must_be_given(tmp_path: Path, key: str) -> None:
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(key)]

    assert key in refusal(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("name", ['"a b"', '""', f'"{"x" * 129}"', '"é"', '"a\\nb"', '"a\\u0000b"'])
def test_a_targets_name_is_safe_in_streams_and_metrics(tmp_path: Path, name: str) -> None:
    assert "name" in refusal(tmp_path, MINIMAL.replace("Sap", name))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "targets = 5",
        "[targets]",
        "targets.Sap = 5",
        MINIMAL + "[other]\n",
        "[targets",
        MINIMAL + MINIMAL,
        b"\xff\xfe",
        MINIMAL.encode("utf-16"),
    ],
    ids=repr,
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str | bytes) -> None:
    assert "targets" in refusal(tmp_path, text)


def test_a_file_that_is_not_there_says_which_variable_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HUB_TARGETS"):
        load_targets(tmp_path / "none.toml")


@pytest.mark.parametrize("url", ["http://h", "https://h:8443/a?b=c", "http://127.0.0.1:1", "http://[::1]:80/x"])
def test_a_plain_url_is_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "/path",
        "ftp://h",
        "file:///etc/passwd",
        "unix:///run/x.sock",
        "http://",
        "http:///path",
        "http://user:letters1@h",
        "http://user@h",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
    ],
)
def test_a_url_that_hides_something_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_url(url)
