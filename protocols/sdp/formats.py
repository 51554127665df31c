"""What format parameters mean: AMR (RFC 4867 section 8) and H.264 (RFC 6184 section 8), defaults included."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Profile = Literal[
    "constrained-baseline", "baseline", "main", "extended", "constrained-high", "high", "high-other", "other"
]

_DEFAULT_PROFILE_LEVEL = 0x42000A
_LEVEL_1B_RANK = 105
MAX_PARAMETER_SETS = 16
_CONSTRAINED_BASELINE_LEVEL_1_2 = 0x42E00C


def parse_fmtp(fmtp: str) -> dict[str, str]:
    """Parameters by lower-case name; a bare name has the value ""; the first of two wins."""
    parameters: dict[str, str] = {}
    for part in fmtp.split(";"):
        name, _, value = part.partition("=")
        if name.strip():
            parameters.setdefault(name.strip().lower(), value.strip())
    return parameters


def format_fmtp(parameters: Mapping[str, str]) -> str:
    """The parameter list as it stands after the payload type."""
    return ";".join(f"{name}={value}" if value else name for name, value in parameters.items())


@dataclass(frozen=True, slots=True)
class AmrFormat:
    """AMR or AMR-WB parameters; absent ones have the defaults of RFC 4867 (a missing fmtp is no mismatch)."""

    octet_align: bool = False
    mode_set: tuple[int, ...] = ()
    """Allowed modes, ascending; empty means all."""
    mode_change_period: int = 1
    mode_change_neighbor: bool = False
    crc: bool = False
    robust_sorting: bool = False
    interleaving: bool = False

    @classmethod
    def from_fmtp(cls, fmtp: str) -> "AmrFormat":
        """The parameters of an fmtp value; crc, robust sorting and interleaving imply octet alignment."""
        given = parse_fmtp(fmtp)
        crc, robust = given.get("crc") == "1", given.get("robust-sorting") == "1"
        interleaving = "interleaving" in given
        modes = {int(mode) for mode in given.get("mode-set", "").split(",") if mode.strip() in _AMR_MODES}
        return cls(
            octet_align=given.get("octet-align") == "1" or crc or robust or interleaving,
            mode_set=tuple(sorted(modes)),
            mode_change_period=2 if given.get("mode-change-period") == "2" else 1,
            mode_change_neighbor=given.get("mode-change-neighbor") == "1",
            crc=crc,
            robust_sorting=robust,
            interleaving=interleaving,
        )

    @property
    def usable(self) -> bool:
        """True without the options nobody here speaks: CRCs, robust sorting, interleaving."""
        return not (self.crc or self.robust_sorting or self.interleaving)

    @property
    def speaks_best(self) -> bool:
        """True if the best narrow-band mode, 12.2 kbit/s, may be sent."""
        return not self.mode_set or 7 in self.mode_set

    def fmtp(self) -> str:
        """The parameters that differ from the defaults."""
        given = {
            "octet-align": "1" if self.octet_align else "",
            "mode-set": ",".join(map(str, self.mode_set)),
            "mode-change-period": "2" if self.mode_change_period == 2 else "",
            "mode-change-neighbor": "1" if self.mode_change_neighbor else "",
            "crc": "1" if self.crc else "",
            "robust-sorting": "1" if self.robust_sorting else "",
        }
        return format_fmtp({name: value for name, value in given.items() if value})


_AMR_MODES = frozenset(map(str, range(9)))


@dataclass(frozen=True, slots=True)
class H264Format:
    """H.264 parameters; absent ones have the defaults of RFC 6184 (Baseline level 1, single NAL unit mode)."""

    profile_level_id: int = _DEFAULT_PROFILE_LEVEL
    """profile_idc, profile-iop and level_idc in 24 bits, e.g. 0x42E01F."""
    packetization_mode: int = 0
    level_asymmetry_allowed: bool = False
    parameter_sets: tuple[bytes, ...] = ()
    """NAL units of sprop-parameter-sets, without start codes."""

    @classmethod
    def from_fmtp(cls, fmtp: str) -> "H264Format":
        """The parameters of an fmtp value; what makes no sense counts as absent."""
        given = parse_fmtp(fmtp)
        mode = given.get("packetization-mode", "")
        return cls(
            profile_level_id=_hexadecimal(given.get("profile-level-id", "")),
            packetization_mode=int(mode) if mode in {"0", "1", "2"} else 0,
            level_asymmetry_allowed=given.get("level-asymmetry-allowed") == "1",
            parameter_sets=_parameter_sets(given.get("sprop-parameter-sets", "")),
        )

    def fmtp(self) -> str:
        """The parameter list; packetization-mode always stands, because phones differ on its absence."""
        given = {
            "profile-level-id": f"{self.profile_level_id:06x}",
            "packetization-mode": str(self.packetization_mode),
        }
        if self.level_asymmetry_allowed:
            given["level-asymmetry-allowed"] = "1"
        if self.parameter_sets:
            given["sprop-parameter-sets"] = ",".join(b64encode(nal).decode() for nal in self.parameter_sets)
        return format_fmtp(given)

    @property
    def profile(self) -> Profile:
        """The profile told by profile_idc and profile-iop (RFC 6184 table 5)."""
        return _profile(self.profile_level_id >> 16, self.profile_level_id >> 8 & 0xFF)

    @property
    def level_rank(self) -> int:
        """A number that grows with the level: ten times level_idc, and 105 for level 1b."""
        level = self.profile_level_id & 0xFF
        low_profile = self.profile_level_id >> 16 in {66, 77, 88}
        is_1b = level == 9 or (level == 11 and low_profile and self.profile_level_id >> 8 & 0x10)
        return _LEVEL_1B_RANK if is_1b else 10 * level

    def decodes(self, stream: "H264Format") -> bool:
        """True if a receiver that declared this can decode that stream's profile in that packetization mode."""
        modes_fit = stream.packetization_mode in {0, self.packetization_mode}
        return modes_fit and stream.profile in _DECODES.get(self.profile, frozenset())


CONSTRAINED_BASELINE = H264Format(_CONSTRAINED_BASELINE_LEVEL_1_2, packetization_mode=1)
"""The format every MTSI terminal knows (TS 26.114: constrained baseline, level 1.2)."""

_BASE: frozenset[Profile] = frozenset({"constrained-baseline"})
_DECODES: dict[Profile, frozenset[Profile]] = {
    "constrained-baseline": _BASE,
    "baseline": _BASE | {"baseline"},
    "main": _BASE | {"main"},
    "extended": _BASE | {"baseline", "main", "extended"},
    "constrained-high": _BASE | {"constrained-high"},
    "high": _BASE | {"main", "constrained-high", "high"},
}
"""Profiles a decoder of each profile also decodes (H.264 annex A.2)."""


def _profile(idc: int, iop: int) -> Profile:
    set0, set1 = iop & 0x80, iop & 0x40
    match idc:
        case 66:
            return "constrained-baseline" if set1 else "baseline"
        case 77:
            return "constrained-baseline" if set0 else "main"
        case 88:
            return "constrained-baseline" if set0 and set1 else "baseline" if set0 else "extended"
        case 100:
            return "constrained-high" if iop & 0x0C == 0x0C else "high"
        case 110 | 122 | 244 | 44:
            return "high-other"
    return "other"


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16) if len(text) == 6 else _DEFAULT_PROFILE_LEVEL
    except ValueError:
        return _DEFAULT_PROFILE_LEVEL


def _parameter_sets(text: str) -> tuple[bytes, ...]:
    try:
        # The padding is often missing; superfluous padding does no harm.
        parts = text.split(",", MAX_PARAMETER_SETS)[:MAX_PARAMETER_SETS]
        return tuple(nal for part in parts if (nal := b64decode(part.strip() + "==")))
    except (Base64Error, ValueError):
        return ()
