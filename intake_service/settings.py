"""What intake makes of the hub's settings."""

from dataclasses import dataclass

from chassis.settings import HubSettings
from chassis.targets import Targets, load_targets


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """Checked at start; nothing reads the environment later."""

    hub: HubSettings
    targets: Targets


def load_settings(hub: HubSettings) -> IntakeSettings:
    """Raises: ConfigurationError that names the setting or the target."""
    hub.check_link(hub.intake_address)
    hub.check_link(hub.intake_metrics_address, encrypted=False)
    hub.check_redis()
    hub.check_database()
    hub.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return IntakeSettings(hub=hub, targets=load_targets(hub.targets))
