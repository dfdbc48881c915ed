"""Secrets in configuration are references only: env:NAME or file:PATH. The value is read where it is used."""

import os
from pathlib import Path

from chassis.errors import ConfigurationError


def read_secret(reference: str, folder: Path) -> str:
    """Read what a reference names; a relative file is found from `folder`.

    Raises: ConfigurationError when it is no reference, or names nothing that can be read; a file is UTF-8 text.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise ConfigurationError(f"The environment has no {name}; a secret refers to it", name=name)
        return os.environ[name]
    if kind == "file":
        try:
            return (folder / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:  # a ValueError: it is not UTF-8
            raise ConfigurationError(f"The secret file {name} cannot be read as UTF-8 text", name=name) from error
    raise ConfigurationError("A secret must be written as env:NAME or file:PATH, never as the value itself")


def check_secret_reference(reference: str) -> None:
    """Raises: ConfigurationError when a secret is written out instead of being referred to."""
    if not reference.startswith(("env:", "file:")):
        raise ConfigurationError("A secret must be written as env:NAME or file:PATH, never as the value itself")
