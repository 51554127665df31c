"""The values that pjsua2 wants for its calls, and what its events hold."""

import pjsua2 as pj

from protocols.dtmf_relay import CONTENT_TYPES

PRESS_MS = 160


def operation(audio: int) -> pj.CallOpParam:
    """Call parameters. As caller PJSUA must expect as many audio streams as there are m-lines, as callee one."""
    prm = pj.CallOpParam(True)
    prm.opt.audioCount, prm.opt.videoCount = audio, 0
    return prm


def key_info(key: str) -> pj.CallSendRequestParam:
    """INFO with a key. PJSUA's own sendDtmf would log it."""
    prm = pj.CallSendRequestParam()
    prm.method, prm.txOption.contentType = "INFO", CONTENT_TYPES[0]
    prm.txOption.msgBody = f"Signal={key}\r\nDuration={PRESS_MS}\r\n"
    return prm


def sip_header(name: str, value: str) -> pj.SipHeader:
    """A header to send."""
    made = pj.SipHeader()
    made.hName, made.hValue = name, value
    return made


def received(event: pj.SipEvent) -> str:
    """The message that caused the event, or nothing."""
    if event.type == pj.PJSIP_EVENT_TSX_STATE and event.body.tsxState.type == pj.PJSIP_EVENT_RX_MSG:
        return str(event.body.tsxState.src.rdata.wholeMsg)
    if event.type == pj.PJSIP_EVENT_RX_MSG:
        return str(event.body.rxMsg.rdata.wholeMsg)
    return ""
