"""Coverage-guided fuzzing of everything that reads strangers' bytes: `python -m tests.security.coverage_fuzz`.

Needs atheris, which has wheels for some platforms only and is therefore no requirement: `pip install atheris`.
Arguments are libFuzzer's: `-max_total_time=600`, `-runs=1000000`, a folder to keep the corpus in.
"""

import sys

import atheris

with atheris.instrument_imports(include=["adapter_service", "chassis", "gateway"]):
    from tests.security.parsers import PARSERS


def one_input(data: bytes) -> None:
    """Hand the bytes to the parser that the first of them chooses."""
    if data:
        list(PARSERS.values())[data[0] % len(PARSERS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
