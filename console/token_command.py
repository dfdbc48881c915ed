"""`hub token` and `hub keys`: the keys in the state folder and what they sign."""

import json
import re
from typing import Annotated

import typer

DEFAULT_SCOPES = ["requests:write", "requests:read"]
#: What the hub fills in itself, and the names its signer already uses.
RESERVED_CLAIMS = {"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "scope", "scopes", "subject", "seconds", "self"}

TOKEN_EXAMPLES = """\b
Examples:
  hub token --partner acme
  hub token --partner acme --scope requests:read --seconds 600
  hub token --partner ops --scope operations
  hub token --partner acme --claim rate_per_minute=6000
"""
KEYS_EXAMPLES = """\b
Examples:
  hub keys
  HUB_STATE_DIR=/var/lib/hub hub keys
"""


def token(
    *,
    partner: Annotated[str, typer.Option(metavar="NAME", help="Whom the token is for (claim `sub`).")],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it allows; several may be given. [default: write and read requests]")
    ] = None,
    seconds: Annotated[int, typer.Option(min=1, max=366 * 86400, help="How long it is valid.")] = 3600,
    claim: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="One more claim.")] = None,
) -> None:
    """Print a token, signed with the key in the state folder."""
    scopes = _read_scopes(scope) if scope else DEFAULT_SCOPES
    claims = dict(map(_read_claim, claim or []))
    if not partner.strip():
        raise typer.BadParameter("--partner must not be empty")

    from chassis.tokens import TokenSigner
    from console.configuration import read_settings

    settings = read_settings()
    signer = TokenSigner(settings.effective_service_key, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    typer.echo(signer.sign(subject=partner, scopes=scopes, seconds=seconds, **claims))


def keys() -> None:
    """Make the hub's key set in the state folder unless it is there, and print where its public half is."""
    from console.configuration import read_settings
    from console.state_folder import make_own_keys

    folder = read_settings().state_dir / "keys"
    if not make_own_keys(folder, lambda text: typer.echo(text, err=True)):
        typer.echo(f"The key set in {folder} was there already; it stays", err=True)
    typer.echo(folder / "jwks.json")


def _read_scopes(options: list[str]) -> list[str]:
    from chassis.access import SCOPES

    scopes = [word for option in options for word in re.split(r"[\s,]+", option) if word]
    for scope in scopes:
        if scope not in SCOPES:
            raise typer.BadParameter(f"there is no scope {scope!r}; the scopes are {', '.join(SCOPES)}")
    if not scopes:
        raise typer.BadParameter("--scope names no scope")
    return list(dict.fromkeys(scopes))


def _read_claim(option: str) -> tuple[str, object]:
    """Read KEY=VALUE; a number, a truth value or a list is taken as such, all else is text."""
    key, separator, text = option.partition("=")
    if not separator or not key:
        raise typer.BadParameter(f"{option!r} is not KEY=VALUE")
    if key in RESERVED_CLAIMS:
        raise typer.BadParameter(f"the claim {key} is set by the hub itself")
    try:
        value = json.loads(text)
    except ValueError:
        return key, text
    return key, value if isinstance(value, int | list) else text
