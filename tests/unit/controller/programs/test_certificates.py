"""The certificates that `beamlit certs` makes: who signed them, how long they hold, and what renewing them does."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from controller.programs.certificates import CertificatesError, Lifetimes, Wanted, parse_grants, write_certificates

NOW = datetime(2027, 1, 1, tzinfo=UTC)
SERVER = ("xds.beamlit.svc", "10.0.0.1")


def wanted(**more):
    return Wanted(SERVER, parse_grants(("gateway", "sidecar/ns/proxy")), **more)


def chain(folder, name):
    (leaf,) = x509.load_pem_x509_certificates((folder / name / "tls.crt").read_bytes())
    return leaf, x509.load_pem_x509_certificates((folder / name / "ca.crt").read_bytes())


def signs(authorities, leaf):
    """Which of the authorities signed it."""
    return [one for one in authorities if one.subject == leaf.issuer and leaf.verify_directly_issued_by(one) is None]


def test_each_program_has_a_folder_and_nobody_else_may_read_it(tmp_path):
    write_certificates(tmp_path / "tls", wanted(), NOW)
    folders = {path.name: sorted(one.name for one in path.iterdir()) for path in (tmp_path / "tls").iterdir()}
    ours = ["ca.crt", "tls.crt", "tls.key"]
    assert folders == {"ca": ["ca.crt", "ca.key"], "xds-server": ours, "gateway": ours, "sidecar-ns-proxy": ours}
    for path in (tmp_path / "tls").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_server_is_for_its_names_and_a_client_for_its_grant(tmp_path):
    write_certificates(tmp_path, wanted(), NOW)
    purposes = {}
    for name, expected in {
        "xds-server": ["spiffe://beamlit/xds-server", "xds.beamlit.svc", "10.0.0.1"],
        "gateway": ["spiffe://beamlit/gateway"],
        "sidecar-ns-proxy": ["spiffe://beamlit/sidecar/ns/proxy"],
    }.items():
        leaf, authorities = chain(tmp_path, name)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(one.value) for one in names] == expected
        (purpose,) = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        purposes[name] = purpose._name
        assert signs(authorities, leaf)
        assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
        assert leaf.not_valid_before_utc < NOW
    assert purposes == {"xds-server": "serverAuth", "gateway": "clientAuth", "sidecar-ns-proxy": "clientAuth"}


def test_run_again_makes_every_certificate_anew_with_the_same_authority(tmp_path):
    write_certificates(tmp_path, wanted(), NOW)
    (first, authorities), later = chain(tmp_path, "gateway"), NOW + timedelta(days=60)
    write_certificates(tmp_path, wanted(), later)
    second, same = chain(tmp_path, "gateway")
    assert (second.public_key() == first.public_key(), same) == (False, authorities)
    assert second.not_valid_after_utc == later + timedelta(days=90)


def test_an_authority_is_believed_before_it_signs_and_after(tmp_path):
    write_certificates(tmp_path, wanted(), NOW)
    old, (first,) = chain(tmp_path, "gateway")
    write_certificates(tmp_path, wanted(new_authority=True), NOW)
    staged, both = chain(tmp_path, "gateway")
    assert signs(both, staged) == [first]
    (second,) = set(both) - {first}
    write_certificates(tmp_path, wanted(), NOW)
    leaf, after = chain(tmp_path, "gateway")
    assert signs(after, leaf) == [second]
    assert signs(after, old) == [first]
    write_certificates(tmp_path, wanted(), first.not_valid_after_utc + timedelta(seconds=1 - 3600 * 24 * 30))
    assert set(chain(tmp_path, "gateway")[1]) == {first, second}


def test_an_authority_that_is_over_is_no_longer_believed_and_signs_nothing(tmp_path):
    short, long = Lifetimes(authority=timedelta(days=10)), Lifetimes()
    written = write_certificates(tmp_path, wanted(lifetimes=short), NOW)
    assert any("the authority ends on 2027-01-11: run with --new-ca" in one.what for one in written)
    leaf, (first,) = chain(tmp_path, "gateway")
    assert leaf.not_valid_after_utc == first.not_valid_after_utc, "nothing outlives who signed it"
    write_certificates(tmp_path, wanted(lifetimes=long, new_authority=True), NOW)
    write_certificates(tmp_path, wanted(), NOW + timedelta(days=11))
    assert first not in chain(tmp_path, "gateway")[1]
    with pytest.raises(CertificatesError, match="ended on"):
        write_certificates(tmp_path, wanted(), NOW + timedelta(days=4000))


def test_what_is_in_the_folder_and_no_authority_is_told(tmp_path):
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "ca.crt").write_text("no certificate")
    with pytest.raises(CertificatesError, match=str(tmp_path)):
        write_certificates(tmp_path, wanted(), NOW)
    write_certificates(tmp_path / "a", wanted(), NOW)
    write_certificates(tmp_path / "b", wanted(), NOW)
    (tmp_path / "a" / "ca" / "ca.key").write_bytes((tmp_path / "b" / "ca" / "ca.key").read_bytes())
    with pytest.raises(CertificatesError, match=r"is not the key of ca\.crt"):
        write_certificates(tmp_path / "a", wanted(), NOW)
    (tmp_path / "file").touch()
    with pytest.raises(CertificatesError, match="File exists"):
        write_certificates(tmp_path / "file", wanted(), NOW)
