"""What docs/benchmarks.md says of how the hub is measured is how it is measured."""

import json
import tomllib

from bench.__main__ import PAGE
from bench.peers.limits import IN_FLIGHT
from bench.report import BEGIN, END
from bench.systems import TARGETS
from chassis.targets import Target


def written_text() -> str:
    """The page without the figures."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + rest.partition(END)[2]


def test_the_page_names_every_key_in_which_the_measured_target_differs_from_the_defaults() -> None:
    written = tomllib.loads(TARGETS.format(endpoint="http://127.0.0.1:9", in_flight=IN_FLIGHT))
    ((_, keys),) = written["targets"].items()
    usual = Target(adapter=keys["adapter"], base_url=keys["base_url"])
    differing = {f"`{key} = {json.dumps(value)}`" for key, value in keys.items() if getattr(usual, key, value) != value}

    assert "`idempotent = true`" in differing
    assert {each for each in differing if each not in written_text()} == set()
