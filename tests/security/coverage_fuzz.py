"""Coverage-guided fuzzing of everything that reads strangers' bytes: `python -m tests.security.coverage_fuzz`.

Needs atheris, which has wheels for some platforms only; `make fuzz` installs it (requirements/fuzz.txt) and runs this.
Arguments are libFuzzer's: `-max_total_time=600`, `-runs=1000000`. What is found stays in .cache/fuzz for the next run.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["adapter_service", "chassis", "gateway"]):
    from tests.security.parsers import PARSERS

CORPUS = Path(__file__).parents[2] / ".cache" / "fuzz"
#: Where the search begins, for each parser: what it is really sent.
SEEDS = (
    b'{"externalId":"E-1","sourceSystem":"SAP","targetSystem":"TotvsProtheus","payload":{"a":[1,2.5,"x"]}}',
    b'{"code":"1","message":"no","detailedMessage":"Authorization: Bearer abc123","a":{"b":1},"items":[{"price":1}]}',
    b'{"keys":[{"kty":"EC","crv":"P-256","kid":"a","use":"sig","x":"AAAA","y":"AAAA"}]}',
    b"status=Completed&limit=50&createdAfter=2024-01-15T10%3A30%3A00Z&cursor=WzFd&externalId=E-1",
    b"3fa85f64-5717-4562-b3fc-2c963f66afa6",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b'{"a":"\\u00e9\\ud83d\\ude00","b":[[[[]]]],"c":1e308,"c":-0.0}',
    b"<html><body>Service unavailable</body></html>",
)


def one_input(data: bytes) -> None:
    """Hand the bytes to the parser that the first of them chooses."""
    if data:
        list(PARSERS.values())[data[0] % len(PARSERS)](data[1:])


def main() -> None:
    for number in range(len(PARSERS)):
        for seed, text in enumerate(SEEDS):
            (CORPUS / "seeds").mkdir(parents=True, exist_ok=True)
            (CORPUS / "seeds" / f"{number}-{seed}").write_bytes(bytes([number]) + text)
    (CORPUS / "found").mkdir(exist_ok=True)
    # libFuzzer keeps what it finds in the first folder and only reads the others
    atheris.Setup([*sys.argv, str(CORPUS / "found"), str(CORPUS / "seeds")], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
