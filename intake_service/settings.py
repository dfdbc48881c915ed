"""What intake makes of the hub's settings."""

from dataclasses import dataclass
from pathlib import Path

from chassis.secret_refs import read_secret
from chassis.settings import HubSettings
from chassis.targets import Targets, load_targets
from intake_service.store.payloads import PayloadKeys, read_payload_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """Checked at start; nothing reads the environment later."""

    hub: HubSettings
    targets: Targets
    #: None = payloads are stored as they are.
    payload_keys: PayloadKeys | None


def load_settings(hub: HubSettings) -> IntakeSettings:
    """Raises: ConfigurationError that names the setting or the target."""
    hub.check_link(hub.intake_address)
    hub.check_link(hub.intake_metrics_address, encrypted=False)
    hub.check_redis()
    hub.check_database()
    hub.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = read_payload_keys(read_secret(hub.payload_keys, Path.cwd())) if hub.payload_keys else None
    return IntakeSettings(hub=hub, targets=load_targets(hub.targets), payload_keys=keys)
