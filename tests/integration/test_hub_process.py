"""A hub that does not get ready is ended, and the test or benchmark that started it is told why."""

from pathlib import Path

import pytest

from console.testing import HubProcess

#: It says one thing and is never ready.
UNHEALTHY = """
import signal, sys
print("intake is not healthy", file=sys.stderr, flush=True)
signal.pause()
"""
ENDED = 'print("no good")'


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubProcess:
    """A hub whose `python -m console` is the given text: it is in the working folder, so before the real one."""
    package = tmp_path / "console"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(request.param)
    monkeypatch.chdir(tmp_path)
    return HubProcess(tmp_path)


@pytest.mark.parametrize("hub", [UNHEALTHY], indirect=True, ids=["unhealthy"])
async def test_a_hub_that_never_gets_ready_is_ended_with_the_last_lines_of_its_log(hub: HubProcess) -> None:
    with pytest.raises(RuntimeError, match=r"not ready within 2 s:\nintake is not healthy"):
        await hub.start(seconds=2)

    with pytest.raises(AssertionError, match="the hub is not running"):
        _ = hub.pid


@pytest.mark.parametrize("hub", [ENDED], indirect=True, ids=["ended"])
async def test_a_hub_that_ends_at_once_is_not_waited_for(hub: HubProcess) -> None:
    with pytest.raises(RuntimeError, match="the hub did not start"):
        await hub.start()
