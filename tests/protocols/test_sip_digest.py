"""Digest authentication: the RFC's own examples, and a server and a client who try to get along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sip.digest import (
    ALGORITHMS,
    NonceSource,
    authorize,
    challenge,
    choose_challenge,
    credentials_algorithm,
    find_credentials,
    ha1,
    verify,
)
from protocols.sip.headers import AuthParams
from protocols.sip.message import Headers, Request

SECRET = b"k" * 32


def answer(nonce: str, *, algorithm: str = "MD5", nc: int = 1, password: str = "pw", user: str = "1001") -> AuthParams:
    offered = AuthParams.parse(str(challenge("realm", nonce, algorithm)))
    return AuthParams.parse(str(authorize(offered, "REGISTER", "sip:d", user, password, nc=nc)))


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616(algorithm: str, response: str) -> None:
    offered = AuthParams.parse(
        'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm='
        f'{algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    signed = authorize(offered, "GET", "/dir/index.html", "Mufasa", "Circle of Life", cnonce=cnonce)
    assert signed.get("response") == response
    assert signed.get("opaque") == offered.get("opaque")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_right_password_is_let_in(algorithm: str) -> None:
    nonces = NonceSource(SECRET)
    credentials = answer(nonces.issue(1000), algorithm=algorithm)
    assert credentials_algorithm(credentials) == algorithm
    assert verify(credentials, "REGISTER", ha1(algorithm, "1001", "realm", "pw"), nonces, 1001) == "ok"


HA1 = ha1("MD5", "1001", "realm", "pw")


def test_the_wrong_password_method_or_user_is_not() -> None:
    nonces = NonceSource(SECRET)
    nonce = nonces.issue(1000)
    assert verify(answer(nonce, password="no"), "REGISTER", HA1, nonces, 1001) == "failed"
    assert verify(answer(nonce), "INVITE", HA1, nonces, 1001) == "failed"
    assert verify(answer(nonce), "REGISTER", None, nonces, 1001) == "failed"
    assert verify(answer(nonce), "REGISTER", HA1, nonces, 1001) == "ok"


def test_an_old_or_foreign_nonce_is_stale_for_who_knows_the_password() -> None:
    nonces = NonceSource(SECRET, lifetime=300)
    nonce = nonces.issue(1000)
    assert verify(answer(nonce), "REGISTER", HA1, nonces, 1301) == "stale"
    assert verify(answer(nonce), "REGISTER", HA1, nonces, 900) == "stale"
    assert verify(answer("made-up"), "REGISTER", HA1, nonces, 1000) == "stale"
    assert verify(answer(NonceSource(b"other").issue(1000)), "REGISTER", HA1, nonces, 1000) == "stale"


def test_a_count_that_does_not_rise_is_a_replay() -> None:
    nonces = NonceSource(SECRET)
    nonce = nonces.issue(1000)
    verdicts = [verify(answer(nonce, nc=nc), "REGISTER", HA1, nonces, 1001) for nc in (1, 2, 2, 1, 5)]
    assert verdicts == ["ok", "ok", "stale", "stale", "ok"]


def test_a_forgotten_nonce_can_not_be_replayed() -> None:
    nonces = NonceSource(SECRET, max_nonces=3)
    issued = [nonces.issue(1000 + index) for index in range(6)]
    assert all(nonces.use(nonce, 1, 1006) for nonce in issued)
    assert not any(nonces.use(nonce, 2, 1006) for nonce in issued[:3])
    assert all(nonces.use(nonce, 2, 1006) for nonce in issued[3:])


def test_a_nonce_outlives_a_restart_with_the_same_secret() -> None:
    assert NonceSource(SECRET).use(NonceSource(SECRET).issue(1000), 1, 1010)


def test_credentials_without_qop_only_by_permission() -> None:
    nonces = NonceSource(SECRET)
    offered = AuthParams.parse(f'Digest realm="realm", nonce="{nonces.issue(1000)}"')
    signed = authorize(offered, "REGISTER", "sip:d", "1001", "pw")
    assert signed.get("nc") == ""
    assert verify(signed, "REGISTER", HA1, nonces, 1001) == "failed"
    assert verify(signed, "REGISTER", HA1, nonces, 1001, allow_without_qop=True) == "ok"


def test_the_client_takes_the_first_challenge_it_can_answer() -> None:
    texts = [
        'Basic realm="r"',
        'Digest realm="r", nonce="1", algorithm=SHA-999',
        'Digest realm="r", nonce="2", qop="auth"',
    ]
    chosen = choose_challenge(AuthParams.parse(text) for text in texts)
    assert chosen is not None
    assert chosen.get("nonce") == "2"
    assert choose_challenge([]) is None


def test_credentials_are_found_by_realm() -> None:
    ours, other = str(answer("n")), str(answer("n")).replace('"realm"', '"other"')
    lines = [("Authorization", value) for value in ("NoOneKnows x=y", 'Digest "broken', other, ours)]
    found = find_credentials(Request("REGISTER", "sip:d", Headers(lines)), "realm")
    assert found is not None
    assert found.get("realm") == "realm"
    assert find_credentials(Request("REGISTER", "sip:d", Headers()), "realm") is None


def test_stale_is_said() -> None:
    assert challenge("r", "n", stale=True).get("stale") == "true"
    assert challenge("r", "n").get("stale") == ""


_NAMES = st.sampled_from(["username", "realm", "nonce", "uri", "response", "algorithm", "qop", "nc", "cnonce"])


@given(st.dictionaries(_NAMES, st.sampled_from(["auth", "MD5", "SHA-256", "0000000g", "-1", "é"]) | st.text()))
def test_no_credentials_break_the_judge(params: dict[str, str]) -> None:
    credentials = AuthParams("Digest", tuple(params.items()))
    assert verify(credentials, "REGISTER", HA1, NonceSource(SECRET), 0, allow_without_qop=True) == "failed"
