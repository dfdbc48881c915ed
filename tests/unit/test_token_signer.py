"""The signing key: what is no private key set is told at the start, in words that say how to get one."""

import json
from pathlib import Path

import pytest
from joserfc.jwk import ECKey, RSAKey

from chassis.errors import ConfigurationError
from chassis.tokens import TokenSigner, make_keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_keys(tmp_path)
    return tmp_path


def sign(file: Path) -> str:
    return TokenSigner(file, issuer="hub", audience="hub").sign(subject="acme", scopes=["requests:read"], seconds=60)


def test_the_hubs_own_keys_sign(folder: Path) -> None:
    assert sign(folder / "private.json").count(".") == 2


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        "[]",
        "null",
        '"a key"',
        '{"keys": null}',
        '{"keys": []}',
        '{"keys": [{}]}',
        "not JSON",
        "[" * 100_000,
        json.dumps(ECKey.generate_key("P-256").as_dict(private=True)),
        json.dumps([ECKey.generate_key("P-256").as_dict(private=True)]),
        json.dumps({"keys": [ECKey.generate_key("P-256").as_dict(private=False)]}),
        json.dumps({"keys": [ECKey.generate_key("P-384").as_dict(private=True)]}),
        json.dumps({"keys": [RSAKey.generate_key(2048).as_dict(private=True)]}),
    ],
    ids=lambda document: document[:12],
)
def test_what_is_no_private_key_set_is_told_before_anything_is_signed(tmp_path: Path, document: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(document)

    with pytest.raises(ConfigurationError) as refused:
        TokenSigner(file, issuer="hub", audience="hub")

    assert refused.value.message == (
        f'The signing key {file} is no JWK set {{"keys": [...]}} whose first key is a private one of the curve P-256; '
        "`hub keys` makes one in the state folder, and HUB_SERVICE_KEY names another"
    )


def test_a_signing_key_that_is_not_there_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read; `hub up` makes one at its first start"):
        sign(tmp_path / "absent.json")
