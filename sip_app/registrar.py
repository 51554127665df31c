"""The registrar (RFC 3261 section 10, Path of RFC 3327, flows of RFC 5626) and the look-up of registered phones.

A binding keeps the flow it was made over; requests to it go back over that flow, so that Path and Contact of a stranger
lead nowhere else. Bindings are durable before the 200.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import lru_cache

import structlog

from protocols.net import Address, Flow
from protocols.records import Binding
from protocols.sip.errors import SipParseError
from protocols.sip.headers import NameAddr
from protocols.sip.message import Request
from protocols.sip.uri import SipUri, parse_uri, uri_equal
from provisioning.config import Config, SipConfig
from sip_app.access.admission import Admitted
from sip_app.calls.incoming import Rejected
from sip_app.metrics import limited
from sip_app.ports import Location

MAX_CONTACT_LENGTH = 1_024
"""Characters of a Contact's URI, and of each other name that is stored with it."""
MAX_PATH_LENGTH = 2_048
"""Characters of all hops of a Path together: every request to the phone carries them."""

log = structlog.get_logger("sip_app.registrar")


@lru_cache(4096)
def dump_flow(flow: Flow, process: str) -> str:
    """A flow as a binding stores it; `process` is the running server's own name."""
    return json.dumps([flow.transport, *flow.local, *flow.remote, flow.id, process], separators=(",", ":"))


@lru_cache(4096)
def load_flow(text: str, process: str) -> Flow:
    """A stored flow, one value for all calls to a phone. The connection number of another process means nothing here:
    it is 0 then."""
    transport, local_host, local_port, host, port, number, made_by = json.loads(text)
    return Flow(transport, Address(local_host, local_port), Address(host, port), number if made_by == process else 0)


class Registrar:
    """Serves REGISTER and finds bindings. `clock` gives Unix seconds, `process` names this run of the server.

    `keep(flow, seconds)` has a connection closed that brings no keep-alive for so long.
    """

    def __init__(
        self,
        config: SipConfig,
        location: Location,
        process: str,
        clock: Callable[[], float],
        keep: Callable[[Flow, float], None] = lambda flow, seconds: None,
    ) -> None:
        self._config = config
        self._location = location
        self._process = process
        self._clock = clock
        self._keep = keep
        self.observers: list[Callable[[str], None]] = []
        """Called with the address of record whose phones came, went or stay longer or shorter; must not block."""
        self._date = (0, "")
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def reconfigure(self, config: Config) -> None:
        """Grant by a changed configuration from now on; what is granted stays."""
        self._config = config.sip

    async def bindings(self, aor: str) -> Sequence[Binding]:
        """The phones registered for `aor`, best q first."""
        return await self._location.bindings(aor, self._clock())

    def flow_of(self, binding: Binding) -> Flow:
        """The flow the binding was made over."""
        return load_flow(binding.flow, self._process)

    async def register(self, admitted: Admitted, aor: str) -> list[tuple[str, str]]:
        """Carry out a REGISTER for `aor`; the header fields of its 200. Raises `Rejected`: 400, 403, 420, 423, 439."""
        async with self._alone(aor):
            return await self._register(admitted, aor)

    @asynccontextmanager
    async def _alone(self, aor: str) -> AsyncIterator[None]:
        """One REGISTER at a time for each number: reading and writing its bindings is one step."""
        lock, users = self._locks.get(aor, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[aor] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._locks[aor][1] - 1
            if users:
                self._locks[aor] = (lock, users)
            else:
                del self._locks[aor]

    async def _register(self, admitted: Admitted, aor: str) -> list[tuple[str, str]]:
        request = admitted.request
        now = self._clock()
        current = {binding.key: binding for binding in await self._location.bindings(aor, now)}
        put: list[Binding] = []
        drop: list[str] = []
        if request.wildcard_contact:
            if request.expires != 0:
                raise Rejected(400, "Contact * Needs Expires 0")
            drop = [key for key, binding in current.items() if _newer(request, binding)]
        else:
            if len(request.contacts) > self._config.max_bindings:
                raise _too_many()
            path = self._path(admitted)
            for contact in request.contacts:
                self._apply(admitted, aor, contact, path, current, put, drop, now)
        if put or drop:
            kept = (current.keys() - set(drop)) | {binding.key for binding in put}
            if len(kept) > self._config.max_bindings:
                raise _too_many()
            await self._location.replace(aor, put, drop)
            for changed in self.observers:
                changed(aor)
            if drop or any(binding.key not in current for binding in put):
                log.info("registrar.bound", aor=aor, bound=len(put), dropped=len(drop), peer=str(admitted.client))
            for gone in drop:
                current.pop(gone, None)
            current |= {binding.key: binding for binding in put}
        headers = [("Contact", _shown(binding, now)) for binding in current.values()]
        headers += [("Path", value) for value in request.headers.all("path")]
        headers.append(("Date", self._dated(int(now))))
        if any(binding.reg_id for binding in put):
            headers.append(("Require", "outbound"))
            if len(request.vias) == 1:
                headers.append(("Flow-Timer", str(self._config.flow_timer)))
                self._keep(admitted.flow, self._config.flow_timer)
        return headers

    def _dated(self, now: int) -> str:
        """The time for phones that have no clock (RFC 3261 section 10.3 step 8), written once a second."""
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True)
        return self._date[1]

    def _path(self, admitted: Admitted) -> tuple[str, ...]:
        """The Path to store (RFC 3327 section 5.3). A stranger's must begin where the request came from."""
        request = admitted.request
        paths = request.paths
        if not paths:
            return ()
        if not admitted.trusted:
            nearest = paths[0].sip_uri.address
            if nearest is None or nearest.host != admitted.flow.remote.host:
                raise Rejected(403, "Path Leads Elsewhere")
        path = tuple([str(hop) for hop in paths])
        if sum(map(len, path)) > MAX_PATH_LENGTH:
            raise Rejected(400, "Path Too Long")
        if self._config.path == "strict" and "path" not in request.supported:
            raise Rejected(420, headers=(("Unsupported", "path"),))
        return path

    @staticmethod
    def _flow_number(request: Request, contact: NameAddr) -> str:
        """The `reg-id` of a contact that is a flow (RFC 5626 section 6); "" for an ordinary one."""
        number = contact.param("reg-id")
        if not number or not contact.param("+sip.instance") or "outbound" not in request.supported:
            return ""
        if not (number.isascii() and number.isdigit()) or len(number) > 10 or len(request.contacts) > 1:
            raise Rejected(400, "Unusable reg-id")
        if len(request.vias) > 1:
            first_hop = request.paths[-1].uri if request.paths else None
            if not isinstance(first_hop, SipUri) or first_hop.param("ob") is None:
                raise Rejected(439)
        return str(int(number))

    def _apply(
        self,
        admitted: Admitted,
        aor: str,
        contact: NameAddr,
        path: tuple[str, ...],
        current: dict[str, Binding],
        put: list[Binding],
        drop: list[str],
        now: float,
    ) -> None:
        request = admitted.request
        try:
            uri, expires, q = contact.sip_uri, contact.expires, contact.q
        except SipParseError as error:
            raise Rejected(400, "Unusable Contact") from error
        written = str(uri)
        instance = contact.param("+sip.instance") or ""
        if max(len(written), len(instance), len(request.call_id)) > MAX_CONTACT_LENGTH:
            raise Rejected(400, "Contact Or Call-ID Too Long")
        if instance:
            instance += f";{self._flow_number(request, contact)}"
        if instance and instance[-1] != ";":
            known = current.get(instance)
        else:
            known = current.get(written) or _equal_binding(uri, current.values())
        if known is not None and not _newer(request, known):
            raise Rejected(400, "CSeq Out Of Order")
        lifetime = self._lifetime(request.expires if expires is None else expires)
        if lifetime == 0:
            if known is not None:
                drop.append(known.key)
            return
        if instance:
            drop += [old.key for old in current.values() if old.instance_id == instance and old is not known]
        put.append(
            Binding(
                aor,
                known.contact if known is not None and not known.reg_id else written,
                request.call_id,
                request.cseq.number,
                now + lifetime,
                q,
                dump_flow(admitted.flow, self._process),
                path,
                instance,
                (request.headers.get("user-agent") or "")[:200],
                now,
            )
        )

    def _lifetime(self, wished: int | None) -> int:
        config = self._config
        if wished is None:
            return config.default_expires
        if 0 < wished < config.min_expires:
            raise Rejected(423, headers=(("Min-Expires", str(config.min_expires)),))
        return min(wished, config.max_expires)


def _too_many() -> Rejected:
    limited("sip.max_bindings")
    return Rejected(403, "Too Many Contacts")


def _newer(request: Request, binding: Binding) -> bool:
    """RFC 3261 section 10.3 step 7: within one Call-ID only a higher CSeq may change a binding."""
    return request.call_id != binding.call_id or request.cseq.number > binding.cseq


def _equal_binding(uri: SipUri, bindings: Iterable[Binding]) -> Binding | None:
    return next(
        (binding for binding in bindings if not binding.reg_id and uri_equal(uri, parse_uri(binding.contact))), None
    )


def _shown(binding: Binding, now: float) -> str:
    q = "" if binding.q == 1.0 else f";q={binding.q:g}"
    instance, _, number = binding.instance_id.rpartition(";")
    named = f';+sip.instance="{instance}"' if instance else ""
    named += f";reg-id={number}" if number else ""
    return f"<{binding.contact}>;expires={max(0, round(binding.expires_at - now))}{q}{named}"
