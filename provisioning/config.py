"""The whole configuration as typed, frozen models: one class per section of the YAML file.

Every default is usable, so an empty file is a valid configuration (loopback, sample subscribers). The docstring
under a field is its description: unit first, then what one gains and pays by changing it. `docs/configuration.md`
is generated from these texts, and `sample.yaml` repeats the defaults; tests keep both equal to this module.
All durations are seconds unless the name says otherwise.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from protocols.net import Address
from provisioning.value_types import (
    Count,
    Delay,
    DisplayName,
    Domain,
    Dscp,
    Host,
    HostPort,
    Identifier,
    MediaFormat,
    Network,
    Number,
    Pattern,
    Port,
    Realm,
    Seconds,
    ServiceCode,
    VideoSize,
    is_loopback,
    parse_host_port,
)

SAMPLE_NUMBERS = tuple(str(number) for number in range(1001, 1010))


def sample_password(number: str) -> str:
    """The well-known password of a sample subscriber: fit for loopback only."""
    return f"dialcast-{number}"


def _reachable(bind: str, advertised: str | None) -> None:
    if advertised is None and ip_address(bind).is_unspecified:
        raise ValueError(f"bind {bind} is no address a peer can send to: set advertised_host too")


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, field docstrings are descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class SipConfig(Section):
    """SIP listeners, registration and what a stranger may make the server spend."""

    bind: Host = "127.0.0.1"
    """Numeric address the UDP and TCP listeners bind to. `0.0.0.0` or `::` listens everywhere; then set
    `advertised_host`. Off loopback the server refuses to start while a subscriber has a sample password."""
    port: Port = 5060
    """Port of both listeners; 0 takes a free one, which suits tests but no phone that stores the address."""
    tcp: bool = True
    """Listen on TCP beside UDP. TCP carries large messages and crosses NATs longer, at one socket a
    phone."""
    advertised_host: Host | None = None
    """Numeric address written into Via, Contact and Record-Route; null writes `bind`. Behind NAT it must
    be the outside address, or answers never arrive."""
    trusted_peers: tuple[Network, ...] = ()
    """Addresses or CIDR networks whose Via, P-Asserted-Identity, History-Info and Diversion are believed
    and who are not challenged. Everyone in them can call as anybody: list only your own proxies."""
    guests: bool = False
    """Let unauthenticated callers watch broadcasts. Convenient for open events; opens the relay's
    bandwidth to strangers."""
    digest_algorithm: Literal["MD5", "SHA-256", "SHA-512-256"] = "MD5"
    """The one algorithm of the default challenge. MD5 is weak but the only one baresip 1.0 and sipp know;
    SHA-256 locks such phones out."""
    nonce_lifetime: Seconds = 300
    """Seconds a nonce stays good. Longer saves 401 round trips, shorter narrows replay; a stale one costs
    the phone one more request."""
    min_expires: Count = 60
    """Shortest registration granted, seconds; below it 423. Shorter finds dead phones sooner, at more
    REGISTERs."""
    max_expires: Count = 3600
    """Longest registration granted, seconds; longer wishes are cut to it."""
    default_expires: Count = 600
    """Registration granted when the phone names none, seconds."""
    max_bindings: Count = 10
    """Contacts one number may have registered at once. Each is rung on a call (forking), so it bounds the
    work of one INVITE."""
    max_message_bytes: Annotated[int, Field(ge=1500, le=1_000_000)] = 65_535
    """Largest SIP message accepted, bytes; also the buffer one TCP connection may hold."""
    max_header_bytes: Annotated[int, Field(ge=1_024)] = 32_768
    """Most bytes the header lines of one message may have together."""
    max_headers: Annotated[int, Field(ge=20)] = 256
    """Most header lines in one message."""
    max_transactions: Count = 20_000
    """Transactions held at once; above it new requests get 503. About 4 kB each."""
    max_connections: Count = 1_000
    """TCP connections held at once; above it new ones are closed. One phone on TCP needs one."""
    max_connections_per_address: Count = 100
    """TCP connections of one client address held at once, so that nobody takes all of them. Phones behind
    one NAT share it."""
    connection_idle_timeout: Seconds = 3_700
    """Seconds without a byte after which a TCP connection is closed. Below `max_expires` a phone that
    sends no keep-alives becomes unreachable before it refreshes."""
    connection_first_message_timeout: Seconds = 15
    """Seconds a new TCP connection has to deliver its first whole message, so that idle strangers hold no
    slot."""
    requests_per_second: Count = 200
    """Requests accepted from one client address each second (bursts of the same size), and ten times as
    many responses; the rest is dropped. Phones behind one NAT share it."""
    dscp: Dscp = 24
    """DSCP of signalling packets, 0-63; 24 is CS3 (TS 26.114). 0 leaves packets unmarked."""
    allow_targets: tuple[Pattern, ...] = ()
    """Regular expressions of foreign targets (matched against the whole `number@host`) that forwarding
    and calls may leave for. Empty: nothing leaves for a foreign domain, so nobody runs up charges."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _reachable(self.bind, self.advertised_host)
        if not self.min_expires <= self.default_expires <= self.max_expires:
            raise ValueError("min_expires <= default_expires <= max_expires must hold")
        return self


class ServiceConfig(Section):
    """The broadcast service: numbers, timers of a broadcast's life, limits."""

    numbers: Annotated[tuple[Number, ...], Field(min_length=1)] = ("8888",)
    """Service numbers; dialling one means going live. The first is the target of automatic forwarding."""
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
    bye_rate: Count = 200
    """BYEs a second when a broadcast ends. Faster frees viewers sooner, slower spares the signalling
    path."""
    max_groups: Count = 1_000
    """Broadcasts live at once; above it 486."""
    max_viewers: Count = 1_000
    """Viewers of one broadcast; above it 486."""
    max_views_per_number: Count = 10
    """Views one number may have of one broadcast, on its several phones; above it 486. Keeps one account
    from taking all places."""
    second_attempt: Literal["reject", "takeover"] = "reject"
    """A number already live dials the service number again: `reject` answers 486, `takeover` moves the
    broadcast to the new call. Takeover lets a stolen password cut a broadcast off."""
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


class RelayConfig(Section):
    """The media relay: addresses, liveness, instant picture, limits."""

    control_host: str = "127.0.0.1"
    """Address the control link listens on. Off loopback `control.tls_*` is required."""
    control_port: Port = 0
    """Port of the control link; 0 takes a free one (only `dialcast up` can find it then)."""
    bind: Host = "127.0.0.1"
    """Numeric address media sockets bind to."""
    advertised_host: Host | None = None
    """Numeric media address written into SDP; null writes `bind`. Behind NAT it must be the outside
    address."""
    port_min: Annotated[int, Field(ge=1024, le=65534)] = 20_000
    """First media port; even. A group takes two to four ports."""
    port_max: Annotated[int, Field(ge=1025, le=65535)] = 39_999
    """Last media port; the range must be open in the firewall and bounds how many groups fit."""
    leg_timeout: Seconds = 15
    """Seconds without an authentic packet after which a leg counts as silent. Shorter ends dead
    broadcasts sooner, longer rides out tunnels."""
    consent_timeout: Seconds = 30
    """Seconds without a STUN consent check after which an ICE leg counts as lost (RFC 7675: 30)."""
    latch: Literal["strict", "signalling", "any"] = "signalling"
    """Which source a leg without ICE may be latched to: only the SDP address (`strict`), also the
    signalling source's host (`signalling`), or whoever sends first (`any`). `any` helps behind odd NATs
    and lets a stranger steal a stream."""
    latch_window: Seconds = 10
    """Seconds after the leg's start in which it may latch."""
    unanswered_timeout: Seconds = 30
    """Seconds media is sent to an address that never answers with RTP, RTCP or STUN before it is cut."""
    cache_seconds: Delay = 2.0
    """Most seconds since the last keyframe kept for a new viewer's instant picture. Longer spares
    keyframe requests, shorter spares memory and the viewer's start burst."""
    cache_bytes: Annotated[int, Field(ge=0)] = 512_000
    """Most bytes of that, per group."""
    source_bitrate_max: Annotated[int, Field(ge=64_000)] = 4_000_000
    """Most a broadcaster may send, bit/s, sound and picture together, with bursts of a second's worth; the
    rest is dropped. Every viewer multiplies it. Keep it well above `media.video_bitrate_max`."""
    keyframe_interval_min: Seconds = 1.0
    """Least seconds between two keyframe requests to a broadcaster. Keyframes are large: asking often
    ruins the picture for all."""
    viewer_keyframe_interval: Seconds = 5.0
    """Least seconds between two requests of one viewer that count."""
    max_groups: Count = 1_000
    """Groups held at once."""
    max_legs_per_group: Count = 1_001
    """Legs in one group, the broadcaster's included."""
    orphan_grace: Delay = 30
    """Seconds a group goes on after its application server vanished."""
    rtcp_interval: Seconds = 5
    """Seconds between RTCP reports to a leg (RFC 3550: at least 5)."""
    dscp_audio: Dscp = 46
    """DSCP of audio packets; 46 is EF."""
    dscp_video: Dscp = 34
    """DSCP of video packets; 34 is AF41."""
    rtp_buffer_bytes: Annotated[int, Field(ge=65_536)] = 2_097_152
    """Socket buffer asked for, bytes, each direction. Small ones drop a keyframe's burst; the kernel caps
    it at net.core.rmem_max."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _reachable(self.bind, self.advertised_host)
        if self.port_min % 2 or self.port_max - self.port_min < 3:
            raise ValueError("port_min must be even and port_max at least port_min + 3")
        return self


class ControlConfig(Section):
    """The control link between application server and relay."""

    connect: tuple[HostPort, ...] = ()
    """Relays `dialcast as` dials, HOST:PORT each; `dialcast up` fills it in by itself."""
    token: SecretStr | None = None
    """Shared secret both ends must know; null lets any local process control the relay (`dialcast up`
    makes one)."""
    tls_certificate: Path | None = None
    """PEM certificate of this end. All three files are required off loopback (mutual TLS)."""
    tls_key: Path | None = None
    """PEM private key of this end."""
    tls_ca: Path | None = None
    """PEM certificate authority that signed the other end."""

    @property
    def relays(self) -> tuple[Address, ...]:
        """`connect` as addresses."""
        return tuple(parse_host_port(text) for text in self.connect)

    @model_validator(mode="after")
    def _tls_whole(self) -> Self:
        if len({self.tls_certificate is None, self.tls_key is None, self.tls_ca is None}) > 1:
            raise ValueError("tls_certificate, tls_key and tls_ca go together: give all three or none")
        return self


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
    password: SecretStr
    """Digest password; kept in the store only as hash, and never overwritten from here."""
    display_name: DisplayName = ""
    """Name shown to those called."""

    @property
    def sample(self) -> bool:
        """True for the well-known sample password."""
        return self.password.get_secret_value() == sample_password(self.number)


class TerminalConfig(Section):
    """Defaults of the softphone, `dialcast phone`; its options win."""

    server: HostPort = "127.0.0.1:5060"
    """Server to register with, HOST:PORT."""
    transport: Literal["udp", "tcp"] = "udp"
    """Signalling transport. TCP survives NATs and large offers better; UDP is one round trip faster."""
    number: Number | None = None
    """Own number; null must be given as option."""
    password: SecretStr | None = None
    """Own password; better in the environment variable DIALCAST_PASSWORD than in a file."""
    service: Number = "8888"
    """Service number to dial for going live."""
    camera: Annotated[tuple[str, ...], Field(min_length=1)] = ("synthetic",)
    """Cameras in switching order: a device index, a video file, or `synthetic`."""
    microphone: str = "synthetic"
    """Sound source: `default` for the device, a sound file, `synthetic` or `none`."""
    speaker: str = "default"
    """Sound sink: `default` for the device, `none`, or a WAV file to write."""
    video_size: VideoSize = "352x288"
    """Picture sent, WIDTHxHEIGHT pixels. 352x288 is H.264 level 1.2, which every phone of TS 26.114
    decodes."""
    fps: Annotated[float, Field(gt=0, le=60)] = 15
    """Pictures a second sent. More is smoother and needs more bit rate for the same sharpness."""
    video_bitrate: Annotated[int, Field(ge=32_000)] = 500_000
    """Video sent, bit/s."""
    keyframe_seconds: Seconds = 2
    """Seconds between keyframes. Shorter mends losses and starts viewers sooner, at a coarser picture."""
    playout_ms: Annotated[int, Field(ge=0, le=1000)] = 60
    """Least delay of the audio playout buffer, milliseconds. Less is closer to live, more rides out
    jitter."""
    playout_max_ms: Annotated[int, Field(ge=20, le=5000)] = 400
    """Most it may grow to on a bad network, milliseconds."""
    register_expires: Count = 600
    """Registration asked for, seconds."""
    send: Literal["ask", "now"] = "ask"
    """Start sending at once or wait for the user."""
    receive: Literal["ask", "now"] = "ask"
    """Start receiving at once or wait for the user."""

    @property
    def size(self) -> tuple[int, int]:
        """`video_size` as (width, height) in pixels."""
        width, _, height = self.video_size.partition("x")
        return int(width), int(height)


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
    data_dir: Path | None = None
    """Directory (made with mode 0700) of the database and the control socket; null is ./dialcast-data."""
    as_id: Identifier | None = None
    """Stable name of this application server; null makes a random one and keeps it in the store. Two
    servers on one database need two names."""
    sip: SipConfig = SipConfig()
    service: ServiceConfig = ServiceConfig()
    media: MediaConfig = MediaConfig()
    relay: RelayConfig = RelayConfig()
    control: ControlConfig = ControlConfig()
    store: StoreConfig = StoreConfig()
    log: LogConfig = LogConfig()
    subscribers: tuple[SubscriberSeed, ...] = Field(default_factory=_sample_subscribers)
    """Accounts made at start when absent. Not given: the samples 1001-1009 with password
    `dialcast-<number>`, for loopback only; `[]` for none."""
    terminal: TerminalConfig = TerminalConfig()

    @property
    def digest_realm(self) -> str:
        """The realm in force."""
        return self.realm or self.domain

    @property
    def data_path(self) -> Path:
        """The data directory in force."""
        return self.data_dir or Path("dialcast-data")

    @property
    def exposed(self) -> bool:
        """True when someone off this host can reach the SIP listeners."""
        return not is_loopback(self.sip.bind)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        numbers = [seed.number for seed in self.subscribers]
        for number in numbers:
            if numbers.count(number) > 1:
                raise ValueError(f"subscribers: number {number} is given twice")
            if number in self.service.numbers:
                raise ValueError(f"subscribers: number {number} is a service number")
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
