"""Picture fast update by SIP INFO (RFC 5168), for phones that know neither PLI nor FIR."""

CONTENT_TYPE = "application/media_control+xml"
PICTURE_FAST_UPDATE = (
    b'<?xml version="1.0" encoding="utf-8"?>\r\n'
    b"<media_control><vc_primitive><to_encoder><picture_fast_update/></to_encoder></vc_primitive></media_control>\r\n"
)


def wants_picture(body: bytes) -> bool:
    """True if an INFO body asks for a full picture. Searched, not parsed: a stranger's XML is not worth a parser."""
    return b"picture_fast_update" in body[:4096]
