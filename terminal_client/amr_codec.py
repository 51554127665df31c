"""AMR and AMR-WB as signalling-only codecs of the pjsua2 wheel, so that PJSUA negotiates them (RFC 4867 names).

The wheel has no AMR, and PJSUA hangs up a call whose answer names only codecs that it does not know. Its shared object
exports PJMEDIA's C interface, so a codec factory is registered there through ctypes: it can be found, described and
opened, and produces nothing, because media never passes through PJSUA here. The structures are those of 2.15.1; with
any other wheel nothing is touched and `register` raises `AmrUnavailableError`.
"""

import ctypes as c
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

WHEEL = "2.15.1.post1"
NOT_SUPPORTED = 70012
"""PJ_ENOTSUP."""
AUDIO = 1
"""PJMEDIA_TYPE_AUDIO."""
CODECS: dict[bytes, tuple[int, int, int]] = {b"AMR": (8000, 96, 12_200), b"AMR-WB": (16000, 97, 23_850)}
"""Encoding name: clock rate, payload type that PJMEDIA would choose, highest bit rate."""


class AmrUnavailableError(Exception):
    """AMR cannot be announced with this wheel; the text says why."""


class _Str(c.Structure):
    _fields_ = [("ptr", c.c_char_p), ("slen", c.c_ssize_t)]


class _CodecInfo(c.Structure):
    _fields_ = [
        ("type", c.c_int),
        ("pt", c.c_uint),
        ("name", _Str),
        ("clock_rate", c.c_uint),
        ("channels", c.c_uint),
    ]


class _FmtpParam(c.Structure):
    _fields_ = [("name", _Str), ("value", _Str)]


class _Fmtp(c.Structure):
    _fields_ = [("count", c.c_uint8), ("param", _FmtpParam * 16)]


class _ParamInfo(c.Structure):
    _fields_ = [
        ("clock_rate", c.c_uint),
        ("channels", c.c_uint),
        ("average_bps", c.c_uint32),
        ("max_bps", c.c_uint32),
        ("max_rx_frame_size", c.c_uint),
        ("frame_ptime", c.c_uint16),
        ("frame_ptime_denominator", c.c_uint8),
        ("encoder_ptime", c.c_uint16),
        ("encoder_ptime_denominator", c.c_uint8),
        ("bits_per_sample", c.c_uint8),
        ("pt", c.c_uint8),
        ("format_id", c.c_uint32),
    ]


class _ParamSetting(c.Structure):
    _fields_ = [
        ("frames_per_packet", c.c_uint8),
        ("flags", c.c_uint8),
        ("encoder_fmtp", _Fmtp),
        ("decoder_fmtp", _Fmtp),
        ("packet_loss", c.c_uint),
        ("complexity", c.c_uint),
        ("constant_bit_rate", c.c_int),
    ]


class _CodecParam(c.Structure):
    _fields_ = [("info", _ParamInfo), ("setting", _ParamSetting)]


class _Factory(c.Structure):
    """pjmedia_codec_factory; its fields follow below because it names itself."""


class _Codec(c.Structure):
    """pjmedia_codec."""


_FactoryPtr, _CodecPtr = c.POINTER(_Factory), c.POINTER(_Codec)
_VoidPtr, _UintPtr = c.c_void_p, c.POINTER(c.c_uint)
_InfoPtr, _ParamPtr = c.POINTER(_CodecInfo), c.POINTER(_CodecParam)


class _FactoryOps(c.Structure):
    _fields_ = [
        ("test_alloc", c.CFUNCTYPE(c.c_int, _FactoryPtr, _InfoPtr)),
        ("default_attr", c.CFUNCTYPE(c.c_int, _FactoryPtr, _InfoPtr, _ParamPtr)),
        ("enum_info", c.CFUNCTYPE(c.c_int, _FactoryPtr, _UintPtr, _InfoPtr)),
        ("alloc_codec", c.CFUNCTYPE(c.c_int, _FactoryPtr, _InfoPtr, c.POINTER(_CodecPtr))),
        ("dealloc_codec", c.CFUNCTYPE(c.c_int, _FactoryPtr, _CodecPtr)),
        ("destroy", c.CFUNCTYPE(c.c_int)),
    ]


class _CodecOps(c.Structure):
    _fields_ = [
        ("init", c.CFUNCTYPE(c.c_int, _CodecPtr, _VoidPtr)),
        ("open", c.CFUNCTYPE(c.c_int, _CodecPtr, _ParamPtr)),
        ("close", c.CFUNCTYPE(c.c_int, _CodecPtr)),
        ("modify", c.CFUNCTYPE(c.c_int, _CodecPtr, _ParamPtr)),
        ("parse", c.CFUNCTYPE(c.c_int, _CodecPtr, _VoidPtr, c.c_size_t, _VoidPtr, _UintPtr, _VoidPtr)),
        ("encode", c.CFUNCTYPE(c.c_int, _CodecPtr, _VoidPtr, c.c_uint, _VoidPtr)),
        ("decode", c.CFUNCTYPE(c.c_int, _CodecPtr, _VoidPtr, c.c_uint, _VoidPtr)),
        ("recover", c.CFUNCTYPE(c.c_int, _CodecPtr, c.c_uint, _VoidPtr)),
    ]


_Factory._fields_ = [
    ("prev", _VoidPtr),
    ("next", _VoidPtr),
    ("factory_data", _VoidPtr),
    ("op", c.POINTER(_FactoryOps)),
]
_Codec._fields_ = [
    ("prev", _VoidPtr),
    ("next", _VoidPtr),
    ("codec_data", _VoidPtr),
    ("factory", _FactoryPtr),
    ("op", c.POINTER(_CodecOps)),
]


def _succeed(*_: Any) -> int:
    return 0


def _refuse(*_: Any) -> int:
    return NOT_SUPPORTED


def _test_alloc(_factory: Any, info: Any) -> int:
    name = c.string_at(info[0].name.ptr, info[0].name.slen)
    return 0 if name in CODECS and info[0].clock_rate == CODECS[name][0] else NOT_SUPPORTED


def _default_attr(_factory: Any, info: Any, param: Any) -> int:
    c.memset(param, 0, c.sizeof(_CodecParam))
    name = c.string_at(info[0].name.ptr, info[0].name.slen)
    about, setting = param[0].info, param[0].setting
    about.clock_rate, about.channels, about.bits_per_sample = info[0].clock_rate, 1, 16
    about.average_bps = about.max_bps = CODECS[name][2]
    about.max_rx_frame_size, about.frame_ptime, about.pt = 64, 20, info[0].pt
    setting.frames_per_packet, setting.decoder_fmtp.count = 1, 1
    octet_align = setting.decoder_fmtp.param[0]
    octet_align.name, octet_align.value = _Str(b"octet-align", 11), _Str(b"1", 1)
    return 0


def _enum_info(_factory: Any, count: Any, infos: Any) -> int:
    known = list(CODECS.items())[: count[0]]
    for index, (name, (rate, payload_type, _)) in enumerate(known):
        infos[index] = _CodecInfo(AUDIO, payload_type, _Str(name, len(name)), rate, 1)
    count[0] = len(known)
    return 0


_open_codecs: dict[int, _Codec] = {}
"""Codecs that PJMEDIA holds, kept alive by address until it gives them back."""


def _alloc_codec(factory: Any, _info: Any, out: Any) -> int:
    codec = _Codec(factory=factory, op=c.pointer(_CODEC_OPS))
    _open_codecs[c.addressof(codec)] = codec
    out[0] = c.pointer(codec)
    return 0


def _dealloc_codec(_factory: Any, codec: Any) -> int:
    _open_codecs.pop(c.addressof(codec[0]), None)
    return 0


def _operations(structure: type[c.Structure], functions: dict[str, Callable[..., int]]) -> Any:
    """The structure of C callbacks: the named ones, and refusal for the rest."""
    return structure(*(kind(functions.get(name, _refuse)) for name, kind in structure._fields_))  # type: ignore[misc]  # ctypes types fields loosely


# PJMEDIA keeps pointers to these until it is destroyed: they must live as long as the process.
_CODEC_OPS = _operations(_CodecOps, dict.fromkeys(("init", "open", "close", "modify"), _succeed))
_FACTORY_OPS = _operations(
    _FactoryOps,
    {
        "test_alloc": _test_alloc,
        "default_attr": _default_attr,
        "enum_info": _enum_info,
        "alloc_codec": _alloc_codec,
        "dealloc_codec": _dealloc_codec,
        "destroy": _succeed,
    },
)
_FACTORY = _Factory(op=c.pointer(_FACTORY_OPS))


def register() -> None:
    """Announce AMR and AMR-WB to PJMEDIA. Call after `libInit`; raises AmrUnavailableError."""
    try:
        installed = version("pjsua2-python")
    except PackageNotFoundError:
        raise AmrUnavailableError("pjsua2-python was not installed as a wheel") from None
    if installed != WHEEL:
        raise AmrUnavailableError(f"pjsua2-python is {installed}, AMR is known to work with {WHEEL} only")
    from pjsua2 import _pjsua2  # noqa: PLC0415  # only the child process may load it

    library = c.CDLL(_pjsua2.__file__)
    library.pjsua_get_pjmedia_endpt.restype = _VoidPtr
    library.pjmedia_endpt_get_codec_mgr.restype = _VoidPtr
    library.pjmedia_endpt_get_codec_mgr.argtypes = [_VoidPtr]
    library.pjmedia_codec_mgr_register_factory.argtypes = [_VoidPtr, _FactoryPtr]
    registry = library.pjmedia_endpt_get_codec_mgr(library.pjsua_get_pjmedia_endpt())
    status = library.pjmedia_codec_mgr_register_factory(registry, c.byref(_FACTORY))
    if status:
        raise AmrUnavailableError(f"PJMEDIA refused the AMR codec factory (status {status})")
