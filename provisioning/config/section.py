"""What all sections of the configuration share."""

from ipaddress import ip_address

from pydantic import BaseModel, ConfigDict


def check_reachable(bind: str, advertised: str | None) -> None:
    """ValueError for a wildcard bind address with nothing better to write into messages."""
    if advertised is None and ip_address(bind).is_unspecified:
        raise ValueError(f"bind {bind} is no address a peer can send to: set advertised_host too")


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, field docstrings are descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)
