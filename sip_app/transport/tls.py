"""TLS for SIP (RFC 3261 section 26.2): our certificate, the clients we accept, the servers we believe (RFC 5922).

TLS 1.2 or later, without renegotiation. Without a configured certificate a self-signed one is made for trials.
"""

import errno
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from zope.interface import implementer

from protocols.net import is_host
from protocols.sip.errors import SipParseError
from protocols.sip.uri import SipUri, parse_uri
from provisioning.config import TlsConfig

TRIAL_FILE = "trial-tls.pem"
"""Key and certificate of a server that was given none, in the data directory."""
TRIAL_DAYS = 397
RENEW_BEFORE = timedelta(days=30)


class TlsSettings:
    """The certificates in force. An OSError names the file that cannot be used."""

    def __init__(self, config: TlsConfig, folder: Path, domain: str, names: Iterable[str]) -> None:
        """`names` are the host names and addresses a trial certificate is made for, beside `domain`."""
        self._config = config
        self._authorities = _certificates(config.ca) if config.ca is not None else None
        self._folder = folder
        self._names = (domain, *names)

    def server(self) -> SSL.Context:
        """What a listener of ours shows and asks for. Reads the files: a renewed certificate is found."""
        config = self._config
        if config.certificate is not None and config.key is not None:
            context = server_context(config.certificate, config.key)
        else:
            trial = trial_certificate(self._folder / TRIAL_FILE, self._names)
            context = server_context(trial, trial)
        if config.client_certificates != "none":
            for authority in self._authorities or ():
                context.add_client_ca(authority)
                if (store := context.get_cert_store()) is not None:
                    store.add_cert(crypto.X509.from_cryptography(authority))
            must = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if config.client_certificates == "required" else 0
            context.set_verify(SSL.VERIFY_PEER | must)
        context.set_alpn_select_callback(_agree)
        context.set_session_id(b"dialcast")
        return context

    def client(self, name: str) -> "ClientCreator":
        """How we call the server of the domain `name` (a name, or an address for a server that has only that)."""
        if self._authorities is None:
            trust: Any = ssl.platformTrust()
        else:
            known = map(crypto.X509.from_cryptography, self._authorities)
            trust = ssl.trustRootFromCertificates([ssl.Certificate(authority) for authority in known])
        return ClientCreator(name, ssl.CertificateOptions(trustRoot=trust, raiseMinimumTo=ssl.TLSVersion.TLSv1_2))


def server_context(certificate: Path, key: Path) -> SSL.Context:
    """What a listener shows: the chain and the key of these files. An OSError names the file that cannot be used."""
    chain = _certificates(certificate)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable(key, "no private key in PEM without a passphrase") from None
    if not isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey):
        raise _unusable(key, "neither an RSA key nor one of an elliptic curve")
    context: SSL.Context = ssl.CertificateOptions(raiseMinimumTo=ssl.TLSVersion.TLSv1_2).getContext()
    context.use_certificate(chain[0])
    for issuer in chain[1:]:
        context.add_extra_chain_cert(issuer)
    try:
        context.use_privatekey(private)
        context.check_privatekey()
    except SSL.Error:
        raise _unusable(key, "not the key of the certificate") from None
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    return context


def _agree(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """What a client that offers protocols by name (RFC 7301) gets; without an answer OpenSSL refuses browsers."""
    return next((name for name in (b"http/1.1", b"sip/2") if name in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


@implementer(IOpenSSLServerConnectionCreator)
class ServerCreator:
    """Makes the server end of each TLS connection, from the context that is in force then."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802 (Twisted's name)
        return SSL.Connection(self.context, None)


@implementer(IOpenSSLClientConnectionCreator)
class ClientCreator:
    """Makes the client end of one TLS connection; OpenSSL checks the server's chain, `proves` its name."""

    def __init__(self, name: str, options: ssl.CertificateOptions) -> None:
        self._name = name
        self._options = options

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: N802 (Twisted's name)
        connection = SSL.Connection(self._options.getContext(), None)
        if not is_host(self._name):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection

    def proves(self, certificate: crypto.X509 | None) -> bool:
        """True if the certificate, whose chain TLS has verified, is the domain's own."""
        return certificate is not None and self._name.lower() in identities(certificate.to_cryptography())


def identities(certificate: x509.Certificate) -> set[str]:
    """The SIP domains and addresses a certificate is for (RFC 5922 section 7.1), lower case.

    SIP URIs of its alternative names if there are any, else DNS names, else the common name; wildcards do not count.
    Addresses are for next hops that were given as one.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return {str(common[-1].value).lower()} if common else set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    domains = {domain for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if (domain := _domain(uri))}
    return addresses | (domains or {name.lower() for name in names.get_values_for_type(x509.DNSName)})


def _domain(uri: str) -> str | None:
    """The domain of a SIP URI without a user, the only kind that names one."""
    try:
        parsed = parse_uri(uri)
    except SipParseError:
        return None
    return parsed.host if isinstance(parsed, SipUri) and parsed.user is None else None


def _certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, in order."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise _unusable(path, "no certificate in PEM") from None


def _unusable(path: Path, why: str) -> OSError:
    return OSError(errno.EINVAL, f"{path}: {why}")


def trial_certificate(path: Path, names: tuple[str, ...]) -> Path:
    """A self-signed certificate and its key for `names`, in one file only its owner may read; made anew when due."""
    wanted = {name.lower() for name in names if not (is_host(name) and ip_address(name).is_unspecified)}
    if path.exists():
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        if certificate.not_valid_after_utc - RENEW_BEFORE > datetime.now(UTC) and wanted <= _covered(certificate):
            return path
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(name)) if is_host(name) else x509.DNSName(name) for name in sorted(wanted)
    ]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=TRIAL_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def _covered(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | {name.lower() for name in names.get_values_for_type(x509.DNSName)}
