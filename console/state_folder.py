"""The state folder and its keys: made when absent, closed to other users of the machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chassis.errors import ConfigurationError
from chassis.settings import HubSettings

Say = Callable[[str], None]


def prepare_state_folder(settings: HubSettings, say: Say) -> None:
    """Make the state folder and the hub's own keys, and close what is open to others; says what it did.

    Raises: ConfigurationError when the folder cannot be made or closed.
    """
    folder = settings.state_dir
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _close_to_others(folder, 0o700, say)
        if not settings.jwt_jwks or not settings.service_key:
            make_own_keys(folder / "keys", say)


def make_own_keys(folder: Path, say: Say) -> bool:
    """Make the hub's key set in `folder`, which lies in the state folder, unless it is there; says whether it did.

    Raises: ConfigurationError when the folder cannot be made or closed.
    """
    from chassis.tokens import make_keys  # 0.1 s of cryptography

    with usable(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.exists():
            _close_to_others(folder, 0o700, say)
            if (folder / "private.json").exists():
                _close_to_others(folder / "private.json", 0o600, say)
        made = make_keys(folder)
    if made:
        say(f"Made a key set in {folder}")
    return made


@contextmanager
def usable(state_dir: Path) -> Iterator[None]:
    """Write in the state folder. Raises: ConfigurationError when that does not go; the disk may be full too."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"The state folder {state_dir} cannot be used ({error.strerror or error}); "
            "make it writable, with room to spare, or set HUB_STATE_DIR to a folder of your own"
        ) from error


def _close_to_others(path: Path, mode: int, say: Say) -> None:
    found = path.stat().st_mode & 0o777
    if found & 0o077:
        path.chmod(mode)
        say(f"{path} was open to other users of this machine (mode {found:04o}); it is {mode:04o} now")
