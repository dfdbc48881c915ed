"""Find Prometheus and its promtool, for the tests: on PATH, else out of Debian's package in this folder's cache.

`python tools/promtool.py [ARGUMENTS]` runs promtool. The package is unpacked into .cache, never installed: installing
it would start a service.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "prometheus"
HELP = (
    "promtool NOT FOUND: the alerts' rules cannot be tested.\n"
    "Install Prometheus (Debian and Ubuntu: `apt-get install prometheus`, macOS: `brew install prometheus`), or make\n"
    "`apt-get download prometheus` and `dpkg` work here: {why}"
)


class NotFound(Exception):
    """There is no such program and it cannot be unpacked; the message says what to install."""


def find(program: str) -> Path:
    """Find `prometheus` or `promtool`. Raises: NotFound."""
    if (found := shutil.which(program)) is not None:
        return Path(found)
    unpacked = CACHE / "usr" / "bin" / program
    if not unpacked.exists():
        _unpack()
    if not unpacked.exists():
        raise NotFound(HELP.format(why=f"Debian's package has no {program}"))
    return unpacked


def _unpack() -> None:
    """Unpack Debian's package beside the cache and put it in its place at once, for two tests may do this together."""
    own = CACHE.with_name(f"prometheus-{os.getpid()}")
    own.mkdir(parents=True, exist_ok=True)
    try:
        _run(["apt-get", "download", "prometheus"], own)
        (package,) = own.glob("prometheus_*.deb")
        _run(["dpkg", "-x", str(package), str(own)], own)
        package.unlink()
        if not CACHE.exists():
            own.rename(CACHE)
    except (OSError, ValueError) as error:
        raise NotFound(HELP.format(why=str(error))) from error
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFound(HELP.format(why=f"{command[0]}: {error}")) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise NotFound(HELP.format(why=f"`{' '.join(command[:2])}` says: {last}"))


def main() -> int:
    try:
        return subprocess.run([find("promtool"), *sys.argv[1:]], check=False).returncode
    except NotFound as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
