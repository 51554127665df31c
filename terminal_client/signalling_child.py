"""The pjsua2 process: registration and calls, never media. `python -m terminal_client.signalling_child`.

It lives alone because the wheel asserts (which ends the process) and may block on a name look-up. One thread polls the
SIP stack and stdin in turn, so every callback runs there. Commands come as JSON lines on stdin, events leave on stdout
(see messages.py); whatever pjsua prints goes to stderr. PJSUA describes audio it never sends (loop transport, no sound
device); `onCallSdpCreated` replaces its m-sections by those that the parent gave.
"""

import contextlib
import ctypes
import os
import select
import sys
import time
from collections.abc import Callable

import pjsua2 as pj
from pjsua2 import _pjsua2

from protocols.net import Address
from terminal_client import amr_codec
from terminal_client.messages import (
    MAX_LINE,
    Answer,
    Answered,
    Command,
    Dial,
    Ended,
    Event,
    Hangup,
    Incoming,
    Listen,
    MessageError,
    Press,
    Progress,
    Quit,
    Ready,
    Reanswered,
    Register,
    Registration,
    Reoffer,
    Reoffered,
    Said,
    Say,
    Start,
    Trouble,
    Unsaid,
    decode_command,
    encode,
)
from terminal_client.offer import SdpError, answer, session_part
from terminal_client.pjsua_values import key_info, operation, received, sip_header
from terminal_client.sip_text import body, header

POLL_MS = 5
GOODBYE_SECONDS = 2.0
"""How long hanging up and deregistering may take at the end."""
LATE_SECONDS = 0.5
"""How long an answer to the first REGISTER is awaited then, which must not leave a binding behind."""
MAX_TEXT = 2_000
"""Characters shown of somebody's text."""
OFFERED_CODECS = ("AMR/8000/1", "PCMU/8000/1", "PCMA/8000/1")

Emit = Callable[[Event], None]


class Call(pj.Call):  # type: ignore[misc]  # the wheel has no types
    """One call; translates PJSUA's callbacks to our events. A Python reference must be kept until it has ended."""

    def __init__(self, stack: "Stack", number: int, media: str = "", pj_id: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(stack.account, pj_id)
        self.stack, self.number, self.media = stack, number, media
        self.remote_sdp = ""
        self.answered = False
        self.ending = ""
        """The Reason header with which we hang up ourselves."""

    def onCallSdpCreated(self, prm: pj.OnCallSdpCreatedParam) -> None:  # noqa: N802  # pjsua2's name
        """Our own m-sections instead of PJSUA's; as an answer, in the offer's order and with its directions."""
        offered = (self.remote_sdp or prm.remSdp.wholeSdp) if prm.remSdp.pjSdpSession else ""
        try:
            ours = answer(self.media, offered) if offered else self.media
        except SdpError as error:
            self.stack.emit(Trouble(f"offer not understood: {error}", self.number))
            return
        prm.sdp.wholeSdp = session_part(prm.sdp.wholeSdp) + ours

    def onCallRxReinvite(self, prm: pj.OnCallRxReinviteParam) -> None:  # noqa: N802
        """Remember the whole offer: pjsua2's own copy turns up empty past about 1 KB."""
        self.remote_sdp = body(prm.rdata.wholeMsg)

    def onCallRxOffer(self, prm: pj.OnCallRxOfferParam) -> None:  # noqa: N802
        """An UPDATE's offer comes without its message."""
        self.remote_sdp = prm.offer.wholeSdp or self.remote_sdp

    def onCallTsxState(self, prm: pj.OnCallTsxStateParam) -> None:  # noqa: N802
        """Answers to our INVITE, and offers inside the call."""
        event = prm.e
        if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
            return
        transaction, message = event.body.tsxState.tsx, event.body.tsxState.src.rdata.wholeMsg
        if transaction.role == pj.PJSIP_ROLE_UAC and transaction.method == "INVITE":
            self._answerreceived(transaction.statusCode, transaction.statusText, message)
        elif transaction.role == pj.PJSIP_ROLE_UAS and transaction.method in ("INVITE", "UPDATE"):
            asked_now = transaction.state == pj.PJSIP_TSX_STATE_TRYING
            if self.answered and asked_now and body(message):
                self.stack.emit(Reoffered(self.number, body(message)))

    def _answerreceived(self, status: int, reason: str, message: str) -> None:
        contact, sdp = header(message, "Contact", "m"), body(message)
        if self.answered:
            if status >= 200:
                self.stack.emit(Reanswered(self.number, status, reason, sdp))
        elif 100 < status < 200:
            self.stack.emit(Progress(self.number, status, reason, contact, sdp))
        elif 200 <= status < 300:
            self.answered = True
            self.stack.emit(Answered(self.number, status, reason, contact, sdp))

    def onInstantMessage(self, prm: pj.OnInstantMessageParam) -> None:  # noqa: N802
        """Text within the call."""
        self.stack.said(self.number, prm)

    def onInstantMessageStatus(self, prm: pj.OnInstantMessageStatusParam) -> None:  # noqa: N802
        """What became of ours."""
        if prm.code >= 300:
            self.stack.emit(Unsaid(self.number, int(prm.code), prm.reason))

    def onCallState(self, prm: pj.OnCallStateParam) -> None:  # noqa: N802
        """The far end's ACK, and every way a call can end."""
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED and info.role == pj.PJSIP_ROLE_UAS:
            self.answered = True
            self.stack.emit(Answered(self.number, 200, info.lastReason, info.remoteContact, ""))
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            why = header(received(prm.e), "Reason") or self.ending
            self.stack.ended(self, Ended(self.number, info.lastStatusCode, info.lastReason, why))


class Account(pj.Account):  # type: ignore[misc]  # the wheel has no types
    """The phone's line."""

    def __init__(self, stack: "Stack") -> None:
        super().__init__()
        self.stack = stack

    def onRegState(self, prm: pj.OnRegStateParam) -> None:  # noqa: N802
        """Registered, refreshed, refused, unanswered (408) or deregistered."""
        expires = max(0, prm.expiration) if prm.code == 200 else 0
        self.stack.registration(Registration(int(prm.code), prm.reason, expires))

    def onInstantMessage(self, prm: pj.OnInstantMessageParam) -> None:  # noqa: N802
        """Text outside of any call: so the server brings a viewer's question."""
        self.stack.said(0, prm)

    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:  # noqa: N802
        """Keep the call, or PJSUA declines it at once; the parent decides."""
        self.stack.incoming(prm.callId, prm.rdata.wholeMsg)


class Stack:
    """PJSUA and the commands it obeys. `emit` must not raise."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.endpoint = pj.Endpoint()
        self.account: Account | None = None
        self.calls: dict[int, Call] = {}
        self.over: list[Call] = []
        """Ended calls, deleted outside of their own callback."""
        self.incoming_count = 0
        self.standing_media = ""
        """Our m-sections for the next incoming call; without them it is busy here."""
        self.registering = False
        """A registrar was asked and has not answered yet."""
        self.registered = False
        """It has bound us at least once."""
        self.tcp = False

    def poll(self) -> None:
        """Let PJSUA work for at most POLL_MS."""
        self.endpoint.libHandleEvents(POLL_MS)
        self.over.clear()

    def obey(self, command: Command) -> None:
        """Carry a command out; PJSUA's refusals become Trouble and, for a call that never was, Ended."""
        try:
            match command:
                case Start():
                    self._start(command)
                case Register():
                    self._register(command)
                case Listen(media=media):
                    self.standing_media = media
                case Dial():
                    self._dial(command)
                case Answer(call=number, status=status, reason=reason) if number in self.calls:
                    self._answer(self.calls[number], status, reason)
                case Reoffer(call=number, media=media) if number in self.calls:
                    self._reoffer(self.calls[number], media)
                case Hangup(call=number, reason=reason) if number in self.calls:
                    self._hangup(self.calls[number], reason)
                case Say(call=number, text=text) if number in self.calls:
                    prm = pj.SendInstantMessageParam()
                    prm.contentType, prm.content = "text/plain;charset=UTF-8", text
                    self.calls[number].sendInstantMessage(prm)
                case Press(call=number, key=key) if number in self.calls:
                    self.calls[number].sendRequest(key_info(key))
                case _:
                    """A call that ended meanwhile."""
        except pj.Error as error:
            if isinstance(command, Start):
                sys.exit(f"the SIP stack cannot start on {command.host}: {error.reason}")
            number = getattr(command, "call", 0)
            self.emit(Trouble(f"{command.kind}: {error.reason}", number))
            if isinstance(command, Dial) and self.calls.pop(number, None) is not None:
                self.emit(Ended(number, 503, error.reason))

    def _start(self, command: Start) -> None:
        if not command.log_level:
            ctypes.CDLL(_pjsua2.__file__).pj_log_set_level(0)  # it would chat before the settings below count
        self.endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 0, True
        config.uaConfig.userAgent = "dialcast phone"
        config.medConfig.threadCnt = 0
        config.logConfig.level = config.logConfig.consoleLevel = command.log_level
        self.endpoint.libInit(config)
        warning = ""
        try:
            amr_codec.register()
        except amr_codec.AmrUnavailableError as error:
            warning = f"{error}; sound will be PCMU"
        for codec in self.endpoint.codecEnum2():
            self.endpoint.codecSetPriority(codec.codecId, 255 if codec.codecId in OFFERED_CODECS else 0)
        transport = pj.TransportConfig()
        transport.port, transport.boundAddress = 0, command.host
        self.tcp, six = command.transport == "tcp", ":" in command.host
        if self.tcp:
            kind = pj.PJSIP_TRANSPORT_TCP6 if six else pj.PJSIP_TRANSPORT_TCP
        else:
            kind = pj.PJSIP_TRANSPORT_UDP6 if six else pj.PJSIP_TRANSPORT_UDP
        transport_id = self.endpoint.transportCreate(kind, transport)
        self.endpoint.libStart()
        self.endpoint.audDevManager().setNoDev()
        port = int(self.endpoint.transportGetInfo(transport_id).localName.rpartition(":")[2])
        codecs = tuple(codec.codecId for codec in self.endpoint.codecEnum2() if codec.priority)
        self.emit(Ready(Address(command.host, port), codecs, warning))

    def _register(self, command: Register) -> None:
        config = pj.AccountConfig()
        config.idUri = command.uri
        config.regConfig.registrarUri = command.registrar
        config.regConfig.timeoutSec = command.expires
        config.regConfig.retryIntervalSec = config.regConfig.firstRetryIntervalSec = 5
        config.regConfig.dropCallsOnFail = False
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", command.user, 0, command.password))
        config.sipConfig.contactParams = command.contact_params
        config.mediaConfig.useLoopMedTp = True
        config.callConfig.prackUse = pj.PJSUA_100REL_OPTIONAL
        config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_OPTIONAL
        self.account = Account(self)
        self.account.create(config)
        self.registering = bool(command.registrar)

    def _dial(self, command: Dial) -> None:
        call = self.calls[command.call] = Call(self, command.call, command.media)
        prm = operation(audio=2)
        for name, value in command.headers:
            prm.txOption.headers.append(sip_header(name, value))
        call.makeCall(command.uri, prm)

    def registration(self, event: Registration) -> None:
        """The registrar has answered, or nobody has."""
        self.registering = False
        self.registered = self.registered or event.expires > 0
        self.emit(event)

    def said(self, number: int, prm: pj.OnInstantMessageParam) -> None:
        """Plain text has come; PJSUA has answered 200 already."""
        if prm.contentType.lower().startswith("text/plain"):
            self.emit(Said(number, prm.fromUri, prm.msgBody[:MAX_TEXT]))

    def incoming(self, pj_id: int, message: str) -> None:
        """A call has come in; numbers count down from -1."""
        self.incoming_count -= 1
        call = self.calls[self.incoming_count] = Call(self, self.incoming_count, self.standing_media, pj_id)
        if not self.standing_media:
            self._answer(call, 486, "")
            return
        # PJSUA writes the answer right after this callback, so the media must be known before anybody rings.
        self.standing_media = ""
        call.remote_sdp = body(message)
        caller, callee = header(message, "From", "f"), header(message, "To", "t")
        self.emit(Incoming(call.number, caller, callee, call.remote_sdp))

    def _answer(self, call: Call, status: int, reason: str) -> None:
        prm = operation(audio=1)
        prm.statusCode, prm.reason = status, reason
        call.answer(prm)

    def _reoffer(self, call: Call, media: str) -> None:
        call.media, call.remote_sdp = media, ""
        prm = operation(audio=2)
        prm.opt.flag = pj.PJSUA_CALL_UNHOLD
        call.reinvite(prm)

    def _hangup(self, call: Call, reason: str) -> None:
        call.ending = reason
        prm = pj.CallOpParam()
        if reason:
            prm.txOption.headers.append(sip_header("Reason", reason))
        call.hangup(prm)

    def ended(self, call: Call, event: Ended) -> None:
        """The call's last word."""
        self.over.append(call)
        if self.calls.pop(call.number, None) and (call.number > 0 or call.remote_sdp):
            self.emit(event)

    def close(self) -> None:
        """Hang up, deregister what is registered, and give PJSUA a moment for both."""
        for call in list(self.calls.values()):
            self._hangup(call, "")
        self._pump(lambda: not self.calls, GOODBYE_SECONDS)
        self._pump(lambda: not self.registering, LATE_SECONDS)
        if self.account and self.registered:
            self.registering = True
            with contextlib.suppress(pj.Error):  # a refresh is under way that nobody answers
                self.account.setRegistration(False)
                self._pump(lambda: not self.registering, GOODBYE_SECONDS)

    def _pump(self, finished: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not finished() and time.monotonic() < until:
            self.poll()


def main() -> None:
    """Run until `quit` or the end of stdin."""
    events = os.dup(1)
    os.dup2(2, 1)  # pjsua logs to the C stdout

    def emit(event: Event) -> None:
        line = encode(event)
        while line:
            line = line[os.write(events, line) :]

    stack = Stack(emit)
    pending, started = b"", False
    while True:
        if started:
            stack.poll()
        readable, _, _ = select.select([0], [], [], 0 if started else 1)
        if not readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            # The parent is gone without a word. Falling silent leaves its broadcast to the network's grace, so that
            # a phone started again takes it over; a BYE would end it.
            os._exit(1)
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > MAX_LINE:
            sys.exit("a command without end")
        for line in lines:
            try:
                command = decode_command(line)
            except MessageError as error:
                emit(Trouble(f"not understood: {error}"))
                continue
            if isinstance(command, Quit):
                if started:
                    stack.close()
                os._exit(0)  # nothing is left to say, and PJSUA's own shutdown takes a second
            stack.obey(command)
            started = started or isinstance(command, Start)


if __name__ == "__main__":
    main()
