"""The configuration an operator writes, and what dialcast says when it is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from provisioning.config import Config, SipConfig, SubscriberSeed
from provisioning.loader import ConfigError, load_config
from provisioning.reference import REFERENCE_FILE, SAMPLE_FILE, reference_page, sample_yaml


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "dialcast.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text), environ or {})
    return tuple(line.replace(f"{tmp_path}/", "") for line in caught.value.problems)


@pytest.mark.parametrize("text", ["", "# nothing\n", "sip:\nrelay:\n", "{}"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text), {}) == Config()


def test_the_defaults_serve_loopback_with_sample_subscribers() -> None:
    config = Config()
    assert not config.exposed
    assert [seed.number for seed in config.subscribers] == [str(number) for number in range(1001, 1010)]
    assert all(seed.sample for seed in config.subscribers)
    assert config.all_domains[0].digest_realm == config.domain == "dialcast.internal"


def test_the_shipped_sample_equals_the_built_in_defaults() -> None:
    assert load_config(SAMPLE_FILE, {}) == Config()
    assert SAMPLE_FILE.read_text() == sample_yaml(), "run python -m provisioning.reference"


def test_the_reference_page_is_what_the_models_say() -> None:
    assert REFERENCE_FILE.read_text() == reference_page(), "run python -m provisioning.reference"


def test_every_key_is_explained() -> None:
    for name, field in Config.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {name: field})
        assert all(item.description for item in inner.values()), name


def test_values_reach_the_models_typed(tmp_path: Path) -> None:
    text = "sip: {port: 5080, tcp: off}\nservices: [{number: 0900}, {number: 12}]\ncontrol: {connect: ['[::1]:7']}\n"
    config = load_config(written(tmp_path, text), {})
    assert (config.sip.port, config.sip.tcp) == (5080, False)
    assert [policy.number for policy in config.services] == ["0900", "12"], "a number keeps its leading zero"
    assert config.control.relays == (("::1", 7),)


def test_a_password_that_looks_like_a_number_stays_what_was_typed(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "subscribers: [{number: 12, password: 1.10e3}]"), {})
    assert config.subscribers[0].password.get_secret_value() == "1.10e3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("domain: a\nsip:\n  prot: 5060\n", "dialcast.yaml:3: sip.prot: unknown key; did you mean 'port'?"),
        ("spi: {}\n", "dialcast.yaml:1: spi: unknown key; did you mean 'sip'?"),
        ("sip: {latch: any}\n", "dialcast.yaml:1: sip.latch: unknown key; did you mean 'relay.latch'?"),
        ("sip:\n\n  port: 70000", "dialcast.yaml:3: sip.port: must be at most 65535"),
        ("sip:\n  port: many", "dialcast.yaml:2: sip.port: must be a whole number"),
        ("sip:\n  tcp: perhaps", "dialcast.yaml:2: sip.tcp: must be true or false"),
        ("sip: 5060", "dialcast.yaml:1: sip: must be a group of keys"),
        ("sip:\n  bind: example.org", "dialcast.yaml:2: sip.bind: must be a numeric IPv4 or IPv6 address"),
        ("media:\n  audio: AMR/8000", "dialcast.yaml:2: media.audio: must be a list"),
        ("relay:\n  latch: maybe", "dialcast.yaml:2: relay.latch: must be 'strict', 'signalling' or 'any'"),
        ("relay:\n  leg_timeout: .inf", "dialcast.yaml:2: relay.leg_timeout: must be a number"),
        ("subscribers:\n- number: 12", "dialcast.yaml:2: subscribers[0].password: is required"),
        ("subscribers:\n- {number: 1a, password: x}", "dialcast.yaml:2: subscribers[0].number: must be 1 to 20 digits"),
        ("sip:\n  port: 1\n  port: 2", "dialcast.yaml:3: sip.port: given twice (first at dialcast.yaml:2)"),
        ("- 1", "dialcast.yaml:1: must be a group of keys, like `domain: example.org`"),
        ("sip:\n  allow_targets: ['(']", "dialcast.yaml:2: sip.allow_targets[0]: is not a regular expression: "),
        ("sip:\n  trusted_peers: [10.0.0.1/8]", "dialcast.yaml:2: sip.trusted_peers[0]: 10.0.0.1/8 has host bits set"),
        ("sip:\n  min_expires: 900", "dialcast.yaml:2: sip: min_expires <= default_expires <= max_expires must hold"),
        ("sip:\n  bind: 0.0.0.0", "dialcast.yaml:2: sip: bind 0.0.0.0 is no address a peer can send to"),
        ("relay: {port_min: 20001}", "dialcast.yaml:1: relay: port_min must be even"),
        ("a: &x [*x]", "dialcast.yaml: is not valid YAML"),
        ("domain: 'x", "dialcast.yaml:1: is not valid YAML"),
        ("domain: !secret x", "dialcast.yaml:1: domain: YAML tags mean nothing here"),
        ("? [1]\n: 2", "dialcast.yaml:1: : a key must be plain text"),
        ("domain: \x07", "dialcast.yaml: is not valid YAML: odd characters"),
        ("[" * 5000, "dialcast.yaml: is not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_a_rule_over_several_keys_names_the_line_of_the_one_that_was_given(tmp_path: Path) -> None:
    path = tmp_path / "dialcast.yaml"
    path.write_text("domain: example.com\nsip:\n  bind: 192.0.2.1\n")
    with pytest.raises(ConfigError, match=r"dialcast.yaml:3: subscribers: sample passwords"):
        load_config(path, {})


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "sip: {port: x, tcp: maybe}\nlog: {level: z}")) == 3


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = {
        "DIALCAST_SIP__PORT": "5090",
        "DIALCAST_DOMAIN": "Example.ORG",
        "DIALCAST_SERVICES": "[{number: 77}, {number: 78}]",
        "DIALCAST_TOYS": "not ours: no such key",
        "SIP__PORT": "1",
    }
    config = load_config(written(tmp_path, "sip: {port: 5080, tcp: false}\ndomain: a.example"), environ)
    assert (config.sip.port, config.sip.tcp, config.domain) == (5090, False, "example.org")
    assert [policy.number for policy in config.services] == ["77", "78"]


def test_the_command_line_wins_over_the_environment() -> None:
    config = load_config(None, {"DIALCAST_SIP__PORT": "5090"}, {"sip.port": 0, "data_dir": "/x"})
    assert (config.sip.port, config.data_path) == (0, Path("/x"))


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    assert problems(tmp_path, "sip: {port: 1}", {"DIALCAST_SIP__PORT": "x"}) == (
        "DIALCAST_SIP__PORT: sip.port: must be a whole number",
    )
    assert problems(tmp_path, "", {"DIALCAST_SIP__PROT": "1"}) == (
        "DIALCAST_SIP__PROT: sip.prot: unknown key; did you mean 'port'?",
    )
    assert problems(tmp_path, "", {"DIALCAST_DOMAIN__X": "1", "DIALCAST_DOMAIN": "y"})[0].startswith(
        "DIALCAST_DOMAIN__X"
    )


@pytest.mark.parametrize("name", ["nothing.yaml", "."])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*cannot be read: [^\n]*$"):
        load_config(tmp_path / name, {})


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "x", {})


@pytest.mark.parametrize(
    "text",
    [
        "subscribers: [{number: 12, password: [hunter2]}]",
        "subscribers: [{number: hunter2, password: hunter2}]",
        "control: {token: {a: hunter2}}",
        "terminal: {password: *hunter2}",
        "subscribers: {password: hunter2}",
    ],
)
def test_an_error_never_shows_a_value(tmp_path: Path, text: str) -> None:
    assert "hunter2" not in "".join(problems(tmp_path, text))


def test_secrets_stay_out_of_the_representation() -> None:
    config = load_config(None, {"DIALCAST_CONTROL__TOKEN": "hunter2", "DIALCAST_STORE__URL": "pg://u:hunter2@h/d"})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in config.model_dump_json()


def test_sample_passwords_are_refused_off_loopback() -> None:
    with pytest.raises(ConfigError, match=r"sample passwords are for loopback only, and sip\.bind is 192\.0\.2\.1"):
        load_config(None, {}, {"sip.bind": "192.0.2.1"})
    assert load_config(None, {}, {"sip.bind": "::1"}).subscribers
    assert load_config(None, {}, {"sip.bind": "192.0.2.1", "subscribers": []}).exposed


def test_a_control_link_off_loopback_needs_certificates() -> None:
    with pytest.raises(ConfigError, match=r"tls_ca are required: the control link uses relay\.example"):
        load_config(None, {"DIALCAST_CONTROL__CONNECT": "['relay.example:7000']"})


def test_a_seed_may_not_shadow_a_service_number_or_another_seed() -> None:
    seed = SubscriberSeed(number="12", password=SecretStr("x"))
    with pytest.raises(ValidationError, match="number 12 is given twice"):
        Config(subscribers=(seed, seed))
    with pytest.raises(ValidationError, match="number 8888 is a service number"):
        Config(subscribers=(SubscriberSeed(number="8888", password=SecretStr("x")),))


def test_a_configuration_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValidationError):
        SipConfig().port = 1


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_config(path, {})
    except ConfigError as error:
        assert all("\n" not in problem for problem in error.problems)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("domain: a.org\ndomain_aliases: [a.org]", "dialcast.yaml:2: domains: a.org is given twice"),
        ("domains:\n- name: b.org\n- name: b.org", "dialcast.yaml:3: domains: b.org is given twice"),
        ("services:\n- number: 88\n- number: 88", "dialcast.yaml:3: services: number 88 is given twice"),
        ("services:\n- number: 1001", "dialcast.yaml:2: subscribers: number 1001 is a service number"),
        (
            "domains: [{name: b.org}]\nservices:\n- number: 88\n  domain: c.org",
            "dialcast.yaml:4: domains: c.org, the domain of 88, is not among them",
        ),
    ],
)
def test_a_name_that_is_in_the_way_is_told_by_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, text) == (told,)
