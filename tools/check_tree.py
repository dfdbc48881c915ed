"""Look through every file that git would commit for what must not be there: secrets, machine paths, registry addresses.

Exits 1 and names each place. The patterns are written so that they do not match themselves.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FORBIDDEN = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a private JSON Web Key": re.compile(r'"d"\s*:\s*"[A-Za-z0-9_-]{40,}"'),
    "a signed token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}"),
    "an access key": re.compile(
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|npm_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,}"
        r"|xox[abprs]-[A-Za-z0-9-]{20,}|AIza[0-9A-Za-z_-]{35}|glpat-[A-Za-z0-9_-]{20,})(?![A-Za-z0-9])"
    ),
    "a password in a URL": re.compile(
        r"(?:postgresql|rediss?|https?)://[\w.-]*:(?!secret@|hunter2@)[A-Za-z0-9_-]{20,}@"
    ),
    "a path of one machine": re.compile(r"(?<![\w.}-])/(?:work|root|farm|home/\w+|Users/\w+)/"),
    "a registry address": re.compile(
        r"(?:pypi|pythonhosted|npmjs|npmmirror)\.(?:org|com)|--(?:extra-)?index-url[ =]|--find-links[ =]"
        r'|"resolved": *"http|^registry *= *http'
    ),
}


def committed_files() -> Iterator[Path]:
    """List what is tracked, and what is new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return (ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file())


def places(path: Path) -> Iterator[str]:
    """Name every line of `path` that holds something forbidden; a binary file holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in FORBIDDEN.items():
            if pattern.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {what}"


def main() -> int:
    found = [place for path in committed_files() for place in places(path)]
    for place in found:
        print(place, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
