"""Our side of offer and answer (RFC 3264) for one audio and one video m-line.

`offer` writes the m-sections that the phone proposes, `read_answer` reads the far end's description into what the media
side needs. PJSUA owns the session part (origin and version); `session_part` and `mirror` work on text for that reason.
"""

import re

DIRECTION = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)\s*$", re.MULTILINE)


def session_part(sdp: str) -> str:
    """Everything before the first m-line."""
    return re.split(r"(?m)^m=", sdp, maxsplit=1)[0]


def sections(sdp: str) -> list[str]:
    """The m-sections, each from its `m=` on."""
    return re.split(r"(?m)^(?=m=)", sdp)[1:]


def mirror(ours: str, remote: str) -> str:
    """Our m-sections as the answer to `remote`: its m-lines in order, directions turned, unknown ones refused."""
    by_kind = {section.split(" ", 1)[0]: section for section in sections(ours)}
    answer = []
    for offered in sections(remote):
        words = offered.split("\n", 1)[0].split()
        section = by_kind.pop(words[0], None)
        if section is None or len(words) < 4 or words[1] == "0":
            answer.append(f"{' '.join([words[0], '0', *words[2:]])}\r\n")
            continue
        direction = _turned(_direction(offered, remote), _direction(section, ""))
        answer.append(DIRECTION.sub("", section).rstrip() + f"\r\na={direction}\r\n")
    return "".join(answer)


def _direction(section: str, whole: str) -> str:
    found = DIRECTION.search(section) or DIRECTION.search(session_part(whole))
    return found[1] if found else "sendrecv"


def _turned(offered: str, wanted: str) -> str:
    """RFC 3264 section 6.1: we send what they receive and we want to send, and the other way round."""
    send = offered in ("sendrecv", "recvonly") and wanted in ("sendrecv", "sendonly")
    receive = offered in ("sendrecv", "sendonly") and wanted in ("sendrecv", "recvonly")
    return {(True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly"}.get(
        (send, receive), "inactive"
    )
