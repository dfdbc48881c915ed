"""Generate the gRPC stubs in gen/ from protos/, or check that what is committed is what would be generated.

`write` rewrites gen/; `accept` also makes today's contract the baseline that later changes are compared with;
`check` changes nothing and fails on any difference. Linting and the breaking check itself are buf's (see the Makefile).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "gen"
PACKAGE = "integrationhub"
BASELINE = PROTOS / "baseline.binpb"


def generate(stubs: Path, baseline: Path) -> None:
    """Write the stubs of every .proto file below `stubs` and the contract as one descriptor set to `baseline`.

    Raises: SystemExit when protoc refuses a file; it has printed why.
    """
    plugins = Path(sys.executable).parent
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"),
        *(f"--python_out={stubs}", f"--grpc_python_out={stubs}"),
        *(f"--mypy_out=quiet:{stubs}", f"--mypy_grpc_out=quiet:{stubs}"),
        *(f"--plugin={name}={plugins / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
        *(f"--descriptor_set_out={baseline}", "--include_imports"),
        *sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")),
    ]
    if subprocess.run(command, check=False, cwd=ROOT).returncode != 0:
        sys.exit("protos/ was not understood: nothing was generated")
    for folder in {path.parent for path in stubs.rglob("*_pb2.py")}:
        for package in (folder, *folder.parents):
            if package == stubs:
                break
            (package / "__init__.py").touch()
    (stubs / PACKAGE / "py.typed").touch()


def write(*, accept: bool) -> None:
    """Replace the committed stubs, and with `accept` the baseline, by what the .proto files say now."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh, baseline = Path(scratch) / "gen", Path(scratch) / BASELINE.name
        fresh.mkdir()
        generate(fresh, baseline)
        wanted = contents(fresh)
        for name in contents(STUBS).keys() - wanted.keys():
            (STUBS / name).unlink()
        for name, content in wanted.items():
            (STUBS / name).parent.mkdir(parents=True, exist_ok=True)
            (STUBS / name).write_bytes(content)
        if accept:
            BASELINE.write_bytes(baseline.read_bytes())
    print(f"{len(wanted)} files written to {STUBS.name}/")


def differences() -> list[str]:
    """Name every committed file that is not what the .proto files would give."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh, baseline = Path(scratch) / "gen", Path(scratch) / BASELINE.name
        fresh.mkdir()
        generate(fresh, baseline)
        wanted, committed = contents(fresh), contents(STUBS)
        found = [f"gen/{name}" for name in wanted.keys() | committed.keys() if wanted.get(name) != committed.get(name)]
        if not BASELINE.exists() or BASELINE.read_bytes() != baseline.read_bytes():
            found.append(str(BASELINE.relative_to(ROOT)))
    return sorted(found)


def contents(folder: Path) -> dict[str, bytes]:
    """Read every generated file below `folder`, by its path from there."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write" | "accept" as verb]:
            write(accept=verb == "accept")
            return 0
        case ["check"]:
            for name in (found := differences()):
                print(f"{name} is not what protos/ says: run `make protos` and commit the result", file=sys.stderr)
            return 1 if found else 0
        case _:
            print("usage: protos.py write | accept | check", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
