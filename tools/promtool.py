"""Find Prometheus, promtool and amtool for the tests: on PATH, else out of Debian's packages in this folder's cache.

`python tools/promtool.py [ARGUMENTS]` runs promtool. A package is unpacked into .cache, never installed: installing
it would start a service.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache"
#: Debian's package of each program.
PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus", "amtool": "prometheus-alertmanager"}
HELP = (
    "{program} NOT FOUND: the alerts cannot be tested.\n"
    "Install it (Debian and Ubuntu: `apt-get install {package}`, macOS: `brew install {brew}`), or make\n"
    "`apt-get download {package}` and `dpkg` work here: {why}"
)


class NotFound(Exception):
    """There is no such program and it cannot be unpacked; the message says what to install."""


def find(program: str) -> Path:
    """Find one of PACKAGES' programs. Raises: NotFound."""
    if (found := shutil.which(program)) is not None:
        return Path(found)
    package = PACKAGES[program]
    unpacked = CACHE / package / "usr" / "bin" / program
    try:
        if not unpacked.exists():
            _unpack(package)
        if not unpacked.exists():
            raise OSError(f"Debian's package has no {program}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        brew = package.rpartition("-")[2]
        raise NotFound(HELP.format(program=program, package=package, brew=brew, why=error)) from error
    return unpacked


def _unpack(package: str) -> None:
    """Unpack Debian's package beside the cache and put it in its place at once, for two tests may do this together."""
    own = CACHE / f"{package}-{os.getpid()}"
    own.mkdir(parents=True, exist_ok=True)
    try:
        _download(package, own)
        (file,) = own.glob(f"{package}_*.deb")
        _run(["dpkg", "-x", str(file), str(own)], own)
        file.unlink()
        if not (CACHE / package).exists():
            own.rename(CACHE / package)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _download(package: str, folder: Path) -> None:
    """Get the package into a folder; where the machine has no list of packages yet, by a list of this folder's own."""
    try:
        _run(["apt-get", "download", package], folder)
    except OSError:
        own_lists = ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        _run(["apt-get", *own_lists, "update"], folder)
        _run(["apt-get", *own_lists, "download", package], folder)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise OSError(f"`{' '.join(command[:2])}` says: {last}")


def main() -> int:
    try:
        return subprocess.run([find("promtool"), *sys.argv[1:]], check=False).returncode
    except NotFound as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
