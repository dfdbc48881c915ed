"""The hub's settings: one class, read once from HUB_* by each process' entry point.

Every default is safe on one machine. What is not here is not configurable; targets live in their own file
(see chassis.targets).
"""

from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.errors import ConfigurationError
from chassis.logs import get_logger
from chassis.secret_refs import read_secret

log = get_logger()

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class HubSettings(BaseSettings):
    """Effective settings of one process; every field is the variable HUB_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="HUB_", frozen=True, extra="ignore")

    state_dir: Path = Field(Path(".hub"), description="Folder of the SQLite file, Valkey's files, keys and logs")
    database_url: str = Field(
        "", description="Empty = SQLite in the state folder; postgresql://..., or env: or file: that holds it"
    )
    redis_url: str = Field("", description="Empty = the embedded Valkey of `hub up`; or as HUB_DATABASE_URL")
    redis_port: int = Field(6390, ge=1, le=65535, description="Port of the embedded Valkey")
    targets: Path = Field(Path("deploy/targets.toml"), description="TOML file with the external systems")

    gateway_address: str = Field("127.0.0.1:8080", description="Where the gateway listens")
    intake_address: str = Field("127.0.0.1:50051", description="Where intake listens")
    orchestrator_address: str = Field("127.0.0.1:50052", description="Where the orchestrator listens")
    adapter_address: str = Field("127.0.0.1:50053", description="Where the adapter listens")
    gateway_metrics_address: str = Field("127.0.0.1:9101", description="Where the gateway's metrics are")
    intake_metrics_address: str = Field("127.0.0.1:9102", description="Where intake's metrics are")
    orchestrator_metrics_address: str = Field("127.0.0.1:9103", description="Where the orchestrator's metrics are")
    adapter_metrics_address: str = Field("127.0.0.1:9104", description="Where the adapter's metrics are")
    simulator_address: str = Field("127.0.0.1:8090", description="The default run's external system")
    intake_url: str = Field(
        "", description="Where clients find intake: host:port, or IPv4:port[,IPv4:port]; empty = its address"
    )
    adapter_url: str = Field("", description="Where clients find the adapter; empty = its address")
    orchestrator_url: str = Field("", description="Where clients find the orchestrator; empty = its address")
    allow_plaintext: bool = Field(False, description="Allow unencrypted links on addresses that are not loopback")
    tls_certificate: str = Field("", description="PEM chain of this process for gRPC; empty = plain text")
    tls_key: str = Field("", description="PEM key of that certificate")
    tls_ca: str = Field("", description="PEM of the authority of the others; empty = this machine's authorities")
    tls_client_auth: bool = Field(False, description="gRPC servers ask for a client certificate of HUB_TLS_CA")
    tls_server_name: str = Field("", description="Name in the servers' certificates; empty = the host that is called")
    gateway_tls_certificate: str = Field("", description="PEM chain for HTTPS; empty = HTTP, behind a proxy with TLS")
    gateway_tls_key: str = Field("", description="PEM key of the gateway's certificate")

    jwt_issuer: str = Field("integration-hub", description="`iss` of every token that is taken, and of our own")
    jwt_audience: str = Field("integration-hub", description="`aud` of every token that is taken, and of our own")
    jwt_jwks: str = Field("", description="Paths or https URLs of key sets, by comma; empty = the state folder's")
    service_key: str = Field("", description="Private JWK set that signs service tokens; empty = the state folder's")

    partner_rate_per_minute: int = Field(600, ge=0, description="Creates per partner and minute; 0 = no limit")
    payload_keys: str = Field("", description="env: or file: with the key ring that seals payloads; empty = plain")
    max_backlog: int = Field(1_000_000, ge=1, description="Waiting requests in all before creates are refused")
    max_backlog_per_partner: int = Field(200_000, ge=1, description="Waiting requests of one partner")
    retention_days: int = Field(0, ge=0, description="Days that a finished request is kept after its end; 0 = for ever")
    event_hours: float = Field(72.0, gt=0, description="Hours that events stay in Redis; each takes memory there")
    grace_seconds: float = Field(20.0, gt=0, description="Time to finish what is in flight after SIGTERM")
    rpc_timeout_seconds: float = Field(10.0, gt=0, description="Deadline of a call between services")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto = console on a terminal")

    @field_validator("*", mode="before")
    @classmethod
    def _no_line_breaks(cls, value: object) -> object:
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise ValueError("must not contain a line break")
        return value

    @property
    def effective_database_url(self) -> str:
        """The URL to connect to, with the default filled in."""
        return _resolved(self.database_url) or f"sqlite:///{self.state_dir / 'hub.sqlite3'}"

    @property
    def effective_redis_url(self) -> str:
        """The URL to connect to, with the default filled in."""
        return _resolved(self.redis_url) or f"redis://{self._embedded_password()}127.0.0.1:{self.redis_port}/0"

    @property
    def redis_password_file(self) -> Path:
        """Where `hub up` keeps the embedded Valkey's password."""
        return self.state_dir / "valkey" / "password"

    def _embedded_password(self) -> str:
        try:
            return f":{quote(self.redis_password_file.read_text().strip(), safe='')}@"
        except OSError:  # no `hub up` has run here: then there is no password to know
            return ""

    @property
    def effective_jwks(self) -> str:
        """Path or URL of the public keys that tokens are checked against."""
        return self.jwt_jwks or str(self.state_dir / "keys" / "jwks.json")

    @property
    def effective_service_key(self) -> Path:
        """Path of the private key set that signs this hub's own service tokens."""
        return Path(self.service_key) if self.service_key else self.state_dir / "keys" / "private.json"

    def address_of(self, service: str) -> str:
        """Where `service` listens, as host:port."""
        return str(getattr(self, f"{service}_address"))

    def metrics_address_of(self, service: str) -> str:
        """Where `service` shows its metrics, as host:port."""
        return str(getattr(self, f"{service}_metrics_address"))

    def url_of(self, service: str) -> str:
        """Where clients reach `service`: one or more host:port, separated by commas."""
        return str(getattr(self, f"{service}_url") or self.address_of(service))

    def check_link(self, address: str, *, encrypted: bool | None = None) -> None:
        """Refuse a plain-text link beyond this machine unless it was asked for; say so where it was.

        A link of gRPC unless `encrypted` says how it stands with another.
        Raises: ConfigurationError when `address` is not loopback and HUB_ALLOW_PLAINTEXT is not set.
        """
        if encrypted is None:
            encrypted = bool(self.tls_certificate)
        host = address.rsplit(":", 1)[0]
        if encrypted or host in LOOPBACK:
            return
        if not self.allow_plaintext:
            raise ConfigurationError(
                f"{address} is not a loopback address and the link is not encrypted; "
                "bind to 127.0.0.1, configure TLS or set HUB_ALLOW_PLAINTEXT=true"
            )
        log.warning("Link is not encrypted", address=address)

    def check_redis(self) -> None:
        """Raises: ConfigurationError when Redis is beyond this machine, without TLS, and that was not asked for."""
        url = urlsplit(self.effective_redis_url)
        if url.scheme not in ("redis", "rediss", "unix"):
            raise ConfigurationError("HUB_REDIS_URL must begin with redis://, rediss:// or unix://")
        port = _port_of_redis(url)
        if url.scheme == "redis":
            self.check_link(f"{url.hostname}:{port}", encrypted=False)

    def check_database(self) -> None:
        """Raises: ConfigurationError when PostgreSQL is beyond this machine and not encrypted, unasked."""
        from chassis.database import driver_parameters  # intake alone has a database

        parameters = driver_parameters(self.effective_database_url)
        encrypted = parameters.get("sslmode") in ("require", "verify-ca", "verify-full")
        hosts = str(parameters.get("hostaddr") or parameters.get("host", ""))
        for host in filter(None, hosts.split(",")):
            if not host.startswith(("/", "@")):  # those are sockets of this machine
                self.check_link(f"{host}:{parameters.get('port') or 5432}", encrypted=encrypted)


def _resolved(url: str) -> str:
    """Raises: ConfigurationError when it refers to nothing."""
    return read_secret(url, Path.cwd()) if url.startswith(("env:", "file:")) else url


def _port_of_redis(url: SplitResult) -> int:
    """Raises: ConfigurationError when it is no number, and then it may be a piece of the password."""
    try:
        return url.port or 6379
    except ValueError:
        raise ConfigurationError(
            "HUB_REDIS_URL cannot be read; write / ? # of its password as %2F %3F %23, and its port as a number"
        ) from None


def read_settings() -> HubSettings:
    """Read the settings from the environment.

    Raises: ConfigurationError that names every bad variable, and no value: it may hold a password.
    """
    try:
        return HubSettings()
    except ValidationError as error:
        faults = "; ".join(f"HUB_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"Correct the environment: {faults}") from None


def split_address(address: str) -> tuple[str, int]:
    """Split host:port. Raises: ConfigurationError when there is no port number."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"{address!r} is not an address; write host:port")
    return host.strip("[]"), int(port)
