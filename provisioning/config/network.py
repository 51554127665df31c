"""The sections about the wire: SIP listeners, the relay, the control link between the two."""

from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from protocols.net import Address
from provisioning.config.section import Section, check_reachable
from provisioning.value_types import (
    Count,
    Delay,
    Dscp,
    Host,
    HostPort,
    Network,
    Pattern,
    Port,
    Seconds,
    parse_host_port,
)


class SipConfig(Section):
    """SIP listeners, registration and what a stranger may make the server spend."""

    bind: Host = "127.0.0.1"
    """Numeric address the listeners bind to. `0.0.0.0` or `::` listens everywhere; then set
    `advertised_host`. Off loopback the server refuses to start while a subscriber has a sample password."""
    port: Port = 5060
    """Port of UDP and TCP; 0 takes a free one, which suits tests but no phone that stores the address."""
    tcp: bool = True
    """Listen on TCP beside UDP. TCP carries large messages and crosses NATs longer, at one socket a
    phone."""
    advertised_host: Host | None = None
    """Numeric address written into Via, Contact and Record-Route; null writes `bind`. Behind NAT it must
    be the outside address, or answers never arrive."""
    also_bind: tuple[Host, ...] = ()
    """More numeric addresses to listen on, each with every transport and the same ports: `::` beside
    `0.0.0.0`, say (alone, `::` takes IPv4 too, but shows it an IPv6 address)."""
    also_advertised: tuple[Host, ...] = ()
    """What Via, Contact and Record-Route show on those of `also_bind`, in the same order; empty shows the
    addresses themselves."""
    trusted_peers: tuple[Network, ...] = ()
    """Addresses or CIDR networks whose Via, P-Asserted-Identity, History-Info and Diversion are believed
    and who are not challenged. Everyone in them can call as anybody: list only your own proxies."""
    edge_proxies: tuple[Network, ...] = ()
    """Addresses or CIDR networks of your own edge proxies (docs/kamailio). Their Via is believed, so that limits
    and NAT handling see the phone behind them; who calls is still asked for by digest."""
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
    max_branch_dialogs: Count = 16
    """Dialogs a phone may make of one call, early ones and late answers each. A To tag of its own makes one, so that
    several phones behind one contact make several; what more of them say is not passed on."""
    max_challenges: Count = 16
    """Challenges of several phones that go back to the caller together (RFC 3261 section 16.7 step 7); the rest is
    left out, and those phones cannot be answered."""
    max_message_bytes: Annotated[int, Field(ge=1500, le=1_000_000)] = 65_535
    """Largest SIP message accepted, bytes; also the buffer one TCP connection may hold."""
    max_header_bytes: Annotated[int, Field(ge=1_024)] = 32_768
    """Most bytes the header lines of one message may have together."""
    max_headers: Annotated[int, Field(ge=20)] = 256
    """Most header lines in one message."""
    max_transactions: Count = 20_000
    """Transactions held at once; above it new requests get 503. About 4 kB each until answered, 1 kB after."""
    max_transaction_bytes: Annotated[int, Field(ge=1_000_000)] = 32_000_000
    """Bytes of all requests whose transactions are held, and of answers kept for repeats; above it the oldest answered
    are forgotten, then new requests get 503. Requests not yet answered take about four times that in memory."""
    max_connections: Count = 1_000
    """Connections (TCP, TLS, WebSocket) held at once. Above it one over which nobody has proven who he is gives way:
    the oldest of the address with most of them; where there is none, new ones are closed. A phone needs one."""
    outgoing_share: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """The share of `max_connections` that is kept for connections this server makes itself, to other domains and to
    phones that are gone from theirs. Clients that ask for more than the rest count as `sip.outgoing_share`."""
    max_connections_per_address: Count = 100
    """Connections of one client address held at once, so that nobody takes all of them. Phones behind
    one NAT share it."""
    connection_idle_timeout: Seconds = 3_700
    """Seconds without a message or keep-alive after which a connection is closed. Below `max_expires` a phone that
    sends no keep-alives becomes unreachable before it refreshes."""
    connection_first_message_timeout: Seconds = 15
    """Seconds a new connection has to deliver its first whole message (keep-alives do not count), so that
    idle strangers hold no slot. The TLS handshake and the WebSocket upgrade have their own time before."""
    message_timeout: Seconds = 20
    """Seconds a message may take from its first byte to its last on a connection, so that nobody holds one by
    sending a byte a minute."""
    keep_alives_per_second: Count = 10
    """CRLF keep-alives, WebSocket pings and empty messages one connection may bring a second; above it the
    connection is cut. Phones send one or two in half a minute."""
    max_unsent_bytes: Annotated[int, Field(ge=65_536)] = 1_000_000
    """Bytes queued for a peer that does not read before its connection is cut."""
    connect_timeout: Seconds = 5
    """Seconds a connection to another server may take to stand, a TLS handshake not counted."""
    flow_timer: Count = 120
    """Seconds in which a phone that registers a flow (RFC 5626) must send a keep-alive; told in `Flow-Timer`. Its
    connection is closed after half a minute more."""
    path: Literal["strict", "lenient"] = "lenient"
    """What becomes of a registration through a proxy that adds Path for a phone without `Supported: path`
    (RFC 3327): `strict` answers 420; `lenient` keeps the Path, so that such phones can be reached at all."""
    requests_per_second: Count = 200
    """Requests, connections and STUN keep-alives accepted from one client address each second (bursts of the
    same size), and ten times as many responses; the rest is dropped. Phones behind one NAT share it."""
    unauthenticated_per_second: Count = 1_000
    """UDP requests accepted each second in all (bursts of the same size) from addresses where nobody has given the
    right password yet, and ten times as many responses. UDP sources can be forged, so that no limit for each holds.
    Above it phones that come anew must try again; those that are known are served as ever."""
    dscp: Dscp = 24
    """DSCP of signalling packets, 0-63; 24 is CS3 (TS 26.114). 0 leaves packets unmarked."""
    route_lifetime: Count = 86_400
    """Seconds after its INVITE or SUBSCRIBE in which requests of a call or subscription between others are passed on.
    What comes later gets 481: longer calls cannot be changed any more, and are hung up by each side alone."""
    allow_targets: tuple[Pattern, ...] = ()
    """Regular expressions of foreign targets (matched against the whole `number@host`) that forwarding
    and calls may leave for. Empty: nothing leaves for a foreign domain, so nobody runs up charges."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_reachable(self.bind, self.advertised_host)
        if self.also_advertised and len(self.also_advertised) != len(self.also_bind):
            raise ValueError("also_advertised needs one address for each of also_bind, or none at all")
        for bind, advertised in zip_longest(self.also_bind, self.also_advertised):
            check_reachable(bind, advertised)
        if not self.min_expires <= self.default_expires <= self.max_expires:
            raise ValueError("min_expires <= default_expires <= max_expires must hold")
        return self


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
    workers: Count = 1
    """Relay processes that `dialcast up` and `dialcast relay` keep running; a broadcast lives on one of them.
    Each takes an equal share of the media ports, the next control port (unless that is 0) and the next
    `operations.relay_port`; limits count for each. More than there are cores gain nothing."""
    engine: Literal["auto", "native", "plain"] = "auto"
    """What moves the media: `native` is C on a thread of its own, `plain` Python, several times slower; `auto` takes
    `native` where it was built."""
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
    max_announcements: Count = 100
    """Calls that prompts are spoken to at once (codes confirmed by voice, PINs asked for); above it those
    calls go without. Each takes a port pair for each medium, and 50 packets a second each way."""
    max_prompts: Count = 40
    """Prompts one such call may have waiting: a number is spoken digit by digit."""
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
        check_reachable(self.bind, self.advertised_host)
        if self.port_min % 2 or self.port_max - self.port_min < 3:
            raise ValueError("port_min must be even and port_max at least port_min + 3")
        if (self.port_max - self.port_min + 1) // self.workers < 4:
            raise ValueError(f"port_min to port_max are too few ports for {self.workers} workers: each needs four")
        if self.control_port and self.control_port + self.workers > 65536:
            raise ValueError(f"no room above control_port for {self.workers} workers, a port each")
        return self


class ControlConfig(Section):
    """The control link between application server and relay."""

    connect: tuple[HostPort, ...] = ()
    """Relays `dialcast as` dials, HOST:PORT each; `dialcast up` fills it in by itself."""
    token: SecretStr | None = None
    """Shared secret both ends must know; null lets any local process control the relay (`dialcast up`
    makes one)."""
    max_strangers: Count = 16
    """Connections to the relay that have not said who they are, at once; one more costs the oldest its place. An
    application server has one, for milliseconds."""
    hello_timeout: Seconds = 5
    """Seconds a connection to the relay may take to say who it is, its TLS handshake as long again."""
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
