"""The outcome of one check: healthy or not, a reason in one word, and a sentence. Nothing secret is in any of it."""

from __future__ import annotations

from dataclasses import dataclass

from controller.api.contract.health import HOST_REFUSED

ANSWERING = "Answering"
ERROR_ANSWERS = "ErrorAnswers"
LOOP_DETECTED = "LoopDetected"

# X509_V_ERR_*, as `ssl.SSLCertVerificationError.verify_code` has them.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OF_NO_AUTHORITY = frozenset((2, 18, 19, 20, 21, 24, 79))
_FOR_ANOTHER = frozenset((62, 64))


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Whether a backend answers, the reason as one word, and a sentence."""

    healthy: bool
    reason: str
    message: str


class CheckError(Exception):
    """A step of a check failed: `reason` is one word, `message` a sentence. Neither holds anything secret."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    @property
    def outcome(self) -> CheckOutcome:
        """What the check found."""
        return CheckOutcome(False, self.reason, self.message)


class NothingNewError(Exception):
    """A check learned nothing that was not known before it."""


def not_resolved(host: str, why: str) -> CheckError:
    """The name leads to no address."""
    return CheckError("NameNotResolved", f"{host} cannot be resolved: {why}")


def host_refused(host: str) -> CheckError:
    """The name leads where nothing may be sent. No more is said: it would tell of addresses inside."""
    return CheckError(HOST_REFUSED, f"{host} leads to an address that is refused")


def not_connected(address: object, why: str) -> CheckError:
    """No connection can be made."""
    return CheckError("NotConnected", f"{address} cannot be connected to: {why}")


def certificate_not_accepted(address: object, server_name: str, code: int, words: str) -> CheckError:
    """The certificate is not as it should be; `code` and `words` are those of OpenSSL."""
    if code in _FOR_ANOTHER:
        fault = f"is not for {server_name}"
    elif code in _OF_NO_AUTHORITY:
        fault = "leads to no authority that is trusted"
    elif code == _EXPIRED:
        fault = "has expired"
    elif code == _NOT_YET_VALID:
        fault = "is not valid yet"
    else:
        fault = f"is not accepted: {words}"
    return CheckError("CertificateNotAccepted", f"the certificate of {address} {fault}")


def no_tls(address: object, openssl_reason: str) -> CheckError:
    """TLS came to nothing; OpenSSL names the reason like `TLSV13_ALERT_CERTIFICATE_REQUIRED`."""
    words = openssl_reason.replace("_", " ").lower()
    if "alert" in words and ("certificate" in words or "unknown ca" in words):
        return CheckError("ClientCertificateNotAccepted", f"{address} asks for a client certificate, or refuses ours")
    if words in ("wrong version number", "record layer failure"):
        words = "it answers with something else"
    return CheckError("TlsNotAgreed", f"{address} does not agree on TLS: {words or 'the connection breaks'}")


def own_certificate_unusable() -> CheckError:
    """What we would show cannot be used."""
    return CheckError("ClientCertificateNotUsable", "our certificate and its private key do not belong together")


def authorities_unusable() -> CheckError:
    """What we would trust cannot be read."""
    return CheckError("AuthoritiesNotUsable", "the authorities that are trusted cannot be read")


def no_token(why: str) -> CheckError:
    """The token endpoint gives none."""
    return CheckError("TokenNotIssued", f"no token is issued: {why}")


def not_answered(what: str, why: str) -> CheckError:
    """A request got no answer."""
    return CheckError("NoAnswer", f"{what} is not answered: {why}")


def answer_to(path: str, status: int) -> CheckOutcome:
    """Judge the answer to a health check: only a 200 is healthy, as for Envoy."""
    healthy = status == 200
    return CheckOutcome(healthy, ANSWERING if healthy else "ErrorAnswer", f"GET {path} answers {status}")


def connected_to(address: object, *, over_tls: bool) -> CheckOutcome:
    """What a check without a request found."""
    proof = ", and its certificate is accepted" if over_tls else ""
    return CheckOutcome(True, ANSWERING, f"{address} accepts connections{proof}")
