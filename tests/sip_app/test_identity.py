"""Who a caller is: the account whose password was given, whatever From claims."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from ua import DOMAIN, running


@pytest.mark.parametrize(
    ("claimed", "reason"),
    [
        (f"sip:1002@{DOMAIN}", "From Is Not You"),
        ("sip:1001@192.0.2.10", "Domain In From Is Not Served Here"),
    ],
)
def test_whoever_claims_to_be_another_is_told_why_not_and_the_log_says_what_was_claimed(
    tmp_path: Path, claimed: str, reason: str
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001")
            with capture_logs() as events:
                refused = await phone.request("MESSAGE", f"sip:1002@{DOMAIN}", from_=f"<{claimed}>")
        assert (refused.status, refused.reason) == (403, reason)
        [told] = [event for event in events if event["event"] == "identity.mismatch"]
        assert (told["aor"], told["claimed"]) == (f"1001@{DOMAIN}", claimed)

    asyncio.run(scenario())


def test_a_phone_that_registers_at_a_domain_which_is_none_of_ours_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            phone = await world.phone("1001", register=False, domain="192.0.2.10")
            refused = await phone.register()
        assert (refused.status, refused.reason) == (403, "Domain In From Is Not Served Here")

    asyncio.run(scenario())
