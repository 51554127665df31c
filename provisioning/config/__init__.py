"""The whole configuration as typed, frozen models: one class per section of the YAML file.

Every default is usable, so an empty file is a valid configuration (loopback, sample subscribers). The docstring
under a field is its description: unit first, then what one gains and pays by changing it. `docs/configuration.md`
is generated from these texts, and `sample.yaml` repeats the defaults; tests keep both equal to this module.
All durations are seconds unless the name says otherwise. `network` holds the sections about the wire, `services` those
about numbers, `terminal` the softphone's, `section` what all share; import from here.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from protocols.net import Address
from provisioning.config.announcements import AnnouncementsConfig
from provisioning.config.cluster import ClusterConfig
from provisioning.config.diversion import DiversionConfig, XcapConfig
from provisioning.config.events import EventsConfig, MessagesConfig
from provisioning.config.network import ControlConfig, RelayConfig, SipConfig
from provisioning.config.operations import OperationsConfig
from provisioning.config.section import Section
from provisioning.config.security import SecurityConfig
from provisioning.config.services import ChannelsConfig, DomainConfig, ServicePolicy, service_policies
from provisioning.config.terminal import TerminalConfig
from provisioning.config.transports import DnsConfig, TlsConfig, WebSocketConfig
from provisioning.value_types import (
    Count,
    Delay,
    DisplayName,
    Domain,
    Identifier,
    MediaFormat,
    Number,
    Realm,
    Seconds,
    ServiceCode,
    is_loopback,
)

__all__ = [
    "OPERATOR_SOCKET",
    "SAMPLE_NUMBERS",
    "AnnouncementsConfig",
    "ChannelsConfig",
    "ClusterConfig",
    "Config",
    "ControlConfig",
    "DiversionConfig",
    "DnsConfig",
    "DomainConfig",
    "EventsConfig",
    "LogConfig",
    "MediaConfig",
    "MessagesConfig",
    "OperationsConfig",
    "RelayConfig",
    "Section",
    "SecurityConfig",
    "ServiceConfig",
    "ServicePolicy",
    "SipConfig",
    "StoreConfig",
    "SubscriberSeed",
    "TerminalConfig",
    "TlsConfig",
    "WebSocketConfig",
    "XcapConfig",
    "sample_password",
    "service_policies",
]

OPERATOR_SOCKET = "operator.sock"
"""The Unix socket in the data directory through which the operator's commands reach the server."""
SAMPLE_NUMBERS = tuple(str(number) for number in range(1001, 1010))


def sample_password(number: str) -> str:
    """The well-known password of a sample subscriber: fit for loopback only."""
    return f"dialcast-{number}"


class ServiceConfig(Section):
    """The broadcast service, whatever number it is reached by: timers of a broadcast's life, limits."""

    join_timeout: Seconds = 5
    """Seconds a terminal that announced a join has to reach the relay before 504. Shorter answers a
    blocked network sooner, longer forgives a slow one."""
    overlay_delay: Delay = 2
    """Seconds after ACK in which the terminal may activate forwarding itself; then the server does it.
    Viewers who call earlier than that ring the phone."""
    reconnect_grace: Delay = 30
    """Seconds a lost broadcast is kept for its broadcaster to call again; viewers wait as long on a
    frozen picture."""
    orphan_grace: Delay = 30
    """Seconds the application server tries to find its groups on a relay again after the control link
    dropped, before it ends the calls."""
    reopen_timeout: Seconds = 5
    """Seconds a phone may take to agree to other media ports, where those it knows were taken when its
    relay was started again; then its call ends with `Media relay lost`."""
    bye_rate: Count = 200
    """BYEs a second when a broadcast ends. Faster frees viewers sooner, slower spares the signalling
    path."""
    max_groups: Count = 1_000
    """Broadcasts live at once; above it 486."""
    max_views_per_number: Count = 10
    """Views one number may have of one broadcast, on its several phones; above it 486. Keeps one account
    from taking all places."""
    forwarding_code: ServiceCode = "21"
    """Service code of unconditional forwarding in the dialled codes, as in `*21*8888#` (TS 22.030 Annex
    B)."""
    session_expires: Annotated[int, Field(ge=90)] = 1_800
    """Session timer asked for, seconds (RFC 4028). Shorter notices dead calls sooner, at one refresh per
    half interval and call."""
    min_se: Annotated[int, Field(ge=90)] = 90
    """Shortest session timer accepted, seconds; below it 422. RFC 4028 allows no less than 90."""
    probe_timeout: Seconds = 4
    """Seconds an OPTIONS sent into a silent call's dialog may go unanswered before the call counts as
    lost."""
    ring_timeout: Seconds = 180
    """Seconds an ordinary call may ring before 408."""

    @model_validator(mode="after")
    def _session_timer_in_order(self) -> Self:
        if self.min_se > self.session_expires:
            raise ValueError("min_se must not exceed session_expires")
        return self


class MediaConfig(Section):
    """Payload formats offered and answered, in order of preference, as `NAME/RATE;fmtp`."""

    audio: Annotated[tuple[MediaFormat, ...], Field(min_length=1)] = (
        "AMR/8000;octet-align=1",
        "AMR/8000",
        "PCMU/8000",
        "PCMA/8000",
    )
    """Audio formats, best first; a broadcaster's first match is what all viewers get (only AMR packing is
    converted). Put PCMU first when most viewers are phones without AMR, at five times the bit rate."""
    video: tuple[MediaFormat, ...] = ("H264;packetization-mode=1", "H264;packetization-mode=0")
    """Video formats, best first. Mode 1 allows fragments; mode 0 needs the encoder to keep every slice
    within one packet."""
    video_bitrate_max: Annotated[int, Field(ge=32_000)] = 1_500_000
    """Most video a broadcaster is asked to send, bit/s. Every viewer costs this much downlink."""


class StoreConfig(Section):
    """Where subscribers, registrations, diversions, broadcasts and dialogs are kept."""

    url: SecretStr | None = None
    """SQLAlchemy database URL (it may hold a password, so it is never printed); null is SQLite at
    `data_dir`/dialcast.db. A file database needs no server but serves one host."""
    commit_interval_ms: Annotated[float, Field(ge=0, le=1000)] = 10
    """Longest wait, milliseconds, in which concurrent writes are gathered into one durable commit. Larger
    means fewer disk flushes under load and later answers."""
    cache_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Longest time, seconds, in which a change made by another process (`dialcast subscriber`) may go
    unseen. 0 asks the database at every read."""
    cache_entries: Count = 100_000
    """Addresses of record kept in memory; about 1 kB each. Fewer than the registered phones means a query
    per request."""


class LogConfig(Section):
    """Structured events on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity written. `debug` shows every SIP message's first line and is slow under load."""
    format: Literal["json", "console"] = "console"
    """`console` for people, `json` for machines: one object a line."""


class SubscriberSeed(Section):
    """An account made at start when its number is not in the store yet; later changes go by `dialcast
    subscriber`."""

    number: Number
    """Phone number, digits only; with the domain it is the address of record."""
    domain: Domain | None = None
    """The number's domain; null is the first one, `domain`."""
    password: SecretStr
    """Digest password; kept in the store only as hash, and never overwritten from here."""
    display_name: DisplayName = ""
    """Name shown to those called."""

    @property
    def sample(self) -> bool:
        """True for the well-known sample password."""
        return self.password.get_secret_value() == sample_password(self.number)


def _sample_subscribers() -> tuple[SubscriberSeed, ...]:
    return tuple(
        SubscriberSeed(number=number, password=SecretStr(sample_password(number))) for number in SAMPLE_NUMBERS
    )


class Config(Section):
    """Everything dialcast can be told."""

    domain: Domain = "dialcast.internal"
    """SIP domain of all numbers: keys are `number@domain`. Changing it later orphans what is stored under
    the old one."""
    domain_aliases: tuple[Domain, ...] = ()
    """Other host names that mean `domain` in a Request-URI, To or From."""
    realm: Realm | None = None
    """Digest realm; null is `domain`. Stored password hashes depend on it, so a change is refused while
    subscribers exist."""
    domains: tuple[DomainConfig, ...] = ()
    """Further domains. The server's own addresses, and telephone numbers, mean the caller's domain."""
    cross_domain_calls: bool = False
    """Let numbers of one domain call, watch and forward to those of another. Off keeps customers apart;
    `sip.allow_targets` can still open single targets."""
    services: tuple[ServicePolicy, ...] = Field(default_factory=lambda: (ServicePolicy(number="8888"),))
    """Service numbers, each with its policy. Not given: 8888, with the defaults below. The
    reference explains the keys of an entry."""
    data_dir: Path | None = None
    """Directory (made with mode 0700) of the database and the control socket; null is ./dialcast-data."""
    as_id: Identifier | None = None
    """Stable name of this application server; null makes a random one and keeps it in the store. Two
    servers on one database need two names."""
    sip: SipConfig = SipConfig()
    tls: TlsConfig = TlsConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    dns: DnsConfig = DnsConfig()
    service: ServiceConfig = ServiceConfig()
    channels: ChannelsConfig = ChannelsConfig()
    announcements: AnnouncementsConfig = AnnouncementsConfig()
    media: MediaConfig = MediaConfig()
    relay: RelayConfig = RelayConfig()
    control: ControlConfig = ControlConfig()
    events: EventsConfig = EventsConfig()
    messages: MessagesConfig = MessagesConfig()
    store: StoreConfig = StoreConfig()
    log: LogConfig = LogConfig()
    operations: OperationsConfig = OperationsConfig()
    cluster: ClusterConfig = ClusterConfig()
    diversion: DiversionConfig = DiversionConfig()
    security: SecurityConfig = SecurityConfig()
    xcap: XcapConfig = XcapConfig()
    subscribers: tuple[SubscriberSeed, ...] = Field(default_factory=_sample_subscribers)
    """Accounts made at start when absent. Not given: the samples 1001-1009 with password
    `dialcast-<number>`, for loopback only; `[]` for none."""
    terminal: TerminalConfig = TerminalConfig()

    @property
    def all_domains(self) -> tuple[DomainConfig, ...]:
        """Every domain served, the first one first."""
        return DomainConfig(name=self.domain, aliases=self.domain_aliases, realm=self.realm), *self.domains

    @property
    def data_path(self) -> Path:
        """The data directory in force."""
        return self.data_dir or Path("dialcast-data")

    @property
    def phone(self) -> TerminalConfig:
        """`terminal`, at our own server where it names none."""
        own = Address(self.sip.advertised_host or self.sip.bind, self.sip.port)
        return self.terminal.model_copy(update={"server": self.terminal.server or str(own)})

    @property
    def exposed(self) -> bool:
        """True when someone off this host can reach the SIP listeners."""
        return not all(map(is_loopback, (self.sip.bind, *self.sip.also_bind)))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self._check_domains()
        services, seeds = service_policies(self), set[str]()
        for seed in self.subscribers:
            aor = f"{seed.number}@{seed.domain or self.domain}"
            if aor in seeds:
                raise ValueError(f"subscribers: number {seed.number} is given twice")
            if aor in services:
                raise ValueError(f"subscribers: number {seed.number} is a service number")
            seeds.add(aor)
        if self.exposed and any(seed.sample for seed in self.subscribers):
            raise ValueError(
                f"subscribers: sample passwords are for loopback only, and sip.bind is {self.sip.bind}: "
                "list your own subscribers, or `subscribers: []` and use `dialcast subscriber add`"
            )
        outside = [
            host for host in (self.relay.control_host, *(r.host for r in self.control.relays)) if not is_loopback(host)
        ]
        if outside and self.control.tls_ca is None:
            raise ValueError(
                "control.tls_certificate, tls_key and tls_ca are required: "
                f"the control link uses {outside[0]}, not loopback"
            )
        return self

    def _check_domains(self) -> None:
        names = [name for domain in self.all_domains for name in (domain.name, *domain.aliases)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"domains: {twice} is given twice")
        known = {domain.name for domain in self.all_domains}
        used = [(policy.number, policy.domain) for policy in self.services]
        for number, domain in (*used, *((seed.number, seed.domain) for seed in self.subscribers)):
            if domain is not None and domain not in known:
                raise ValueError(f"domains: {domain}, the domain of {number}, is not among them")
        if not self.services:
            raise ValueError("services: at least one number is needed")
        if again := next((number for number in used if used.count(number) > 1), None):
            raise ValueError(f"services: number {again[0]} is given twice")
