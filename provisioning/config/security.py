"""The section about strangers who try and subscribers who overdo it."""

from provisioning.config.section import Section
from provisioning.value_types import Count, Delay, Network, Pattern, Seconds


class SecurityConfig(Section):
    """Blocking of addresses, limits of accounts, and what may be run up at other people's cost."""

    failures_before_delay: Count = 3
    """Wrong passwords of one address within `failure_window` that are answered at once; each further
    one waits twice as long as the one before."""
    delay_max: Delay = 4
    """Longest such wait, seconds; 0 waits never."""
    failures_before_block: Count = 20
    """Wrong passwords of one address within `failure_window` after which it is blocked. Phones behind
    one NAT share it: one with an old password makes them all suffer where this is low."""
    scans_before_block: Count = 100
    """Calls of one address to numbers or codes that do not exist, and challenges left unanswered over
    TCP, TLS or WebSocket, within `failure_window`, after which it is blocked."""
    failure_window: Seconds = 300
    """Seconds after which an address's failures are forgotten."""
    block_seconds: Seconds = 600
    """Seconds a block lasts. Registered phones at that address that know their password go on being
    served; `dialcast blocks` shows and lifts."""
    never_block: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    """Addresses or CIDR networks whose failures do not count. `sip.trusted_peers` never count either;
    the clients behind them do."""
    scanners: Pattern = r"friendly-scanner|sipvicious|sundayddr|sip-scan|sipcli|pplsip"
    """Regular expression; a request outside dialogs whose User-Agent it is found in is dropped in silence."""
    registers_per_minute: Count = 120
    """REGISTERs of one account served in a minute (bursts of the same size); above it 503 with
    Retry-After."""
    calls_per_minute: Count = 120
    """INVITEs of one account in a minute; above it 503 with Retry-After."""
    messages_per_minute: Count = 120
    """Other requests of one account outside dialogs (MESSAGE, SUBSCRIBE, ...) in a minute; above it 503
    with Retry-After."""
    calls_at_once: Count = 20
    """Calls of one account at this server at the same time; above it 486."""
    max_dialogs: Count = 20_000
    """Calls this server answers itself at the same time, whoever calls, ringing ones included; above it 503. About
    20 kB each."""
    deny_targets: tuple[Pattern, ...] = ()
    """Regular expressions of foreign targets (the whole `number@host`) that nothing leaves for whatever
    `sip.allow_targets` says, such as premium-rate numbers."""
    foreign_calls_per_hour: Count = 60
    """Calls that may leave for other domains in an hour at one account's cost: the caller's, and the
    forwarding one's if a diversion took them there. Above it 403."""
    foreign_targets_per_hour: Count = 20
    """Different foreign targets among those; above it 403. Fraud dials many."""
    foreign_burst: Count = 10
    """Such calls within one minute that count as fraud: none leaves any more for `fraud_block_seconds`."""
    fraud_block_seconds: Seconds = 3_600
    """Seconds an account's calls to other domains stay refused after a burst; `dialcast blocks` lifts."""
