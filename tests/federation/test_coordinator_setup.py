import datetime
import hashlib
import os

import pytest
from cryptography import x509

from napari_fedsam.federation.bundle import build_bundle
from napari_fedsam.federation.certificates import OwnCertificate, create_certificates
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_settings import CoordinatorSettings
from napari_fedsam.federation.coordinator_setup import Reach, own_certificate
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import ensure_key_pair

OUTSIDE = Reach("fed.example", 9443, further_hosts=("192.0.2.7",))


@pytest.fixture
def coordinator(tmp_path):
    return Coordinator(tmp_path / "coordinator")


@pytest.fixture
def key(tmp_path):
    (tmp_path / "a site").mkdir()
    return ensure_key_pair(tmp_path / "a site").read_text()


def test_what_a_new_coordinator_holds(coordinator, recipe):
    settings = coordinator.init(recipe, OUTSIDE, name="Discs", contact="me")
    assert coordinator.settings == settings
    assert coordinator.recipe == recipe
    assert (settings.federation, settings.address) == ("Discs", "fed.example:9443")
    assert (settings.proxy, settings.local_address) == ("nginx", "127.0.0.1:9444")
    bundle = coordinator.files.bundle.read_bytes()
    assert bundle == build_bundle()
    assert settings.bundle_sha256 == hashlib.sha256(bundle).hexdigest()
    assert coordinator.sites.sites() == ()
    server = x509.load_pem_x509_certificate((coordinator.folder / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "fed.example" in names.get_values_for_type(x509.DNSName)
    assert "192.0.2.7" in map(str, names.get_values_for_type(x509.IPAddress))


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_every_private_file_is_private(coordinator, recipe):
    coordinator.init(recipe)
    for name in ("signing.key", "ca.key", "server.key"):
        assert (coordinator.folder / name).stat().st_mode & 0o777 == 0o600
    assert coordinator.folder.stat().st_mode & 0o777 == 0o700


def test_on_this_machine_alone_nothing_stands_before_superlink(coordinator, recipe):
    settings = coordinator.init(recipe, Reach(port=9100))
    assert (settings.proxy, settings.address) == ("none", "127.0.0.1:9100")
    assert settings.local_address == settings.address


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (Reach("fed.example", proxy="none"), "cannot reach fed.example without a reverse proxy"),
        (Reach("fed.example", 9443, superlink_port=9443), "cannot share the port 9443"),
        (Reach("fed.example", 70000), "port cannot be 70000"),
        (Reach("fed.example/path"), "host cannot be"),
        (Reach("127.0.0.1", own_certificate=OwnCertificate(None, None, None)), "nothing would"),
    ],
)
def test_what_cannot_be_reached_is_refused(coordinator, recipe, reach, words):
    with pytest.raises(FederationError, match=words):
        coordinator.init(recipe, reach)
    assert not coordinator.folder.exists()


def test_a_method_that_exchanges_nothing_is_refused(coordinator, recipe):
    alone = recipe.model_copy(update={"method": "local"})
    with pytest.raises(FederationError, match="exchanges nothing between sites"):
        coordinator.init(alone)
    assert not coordinator.folder.exists()


def test_a_base_model_that_may_differ_from_site_to_site_is_refused(coordinator, recipe):
    local = recipe.model_copy(update={"base_model": "/models/sam.pth"})
    with pytest.raises(
        FederationError, match="may be another one at each site; choose one of lite"
    ):
        coordinator.init(local)
    assert not coordinator.folder.exists()


def test_a_coordinator_is_made_once(tmp_path, coordinator, recipe):
    coordinator.init(recipe)
    with pytest.raises(FederationError, match="holds a coordinator already"):
        coordinator.init(recipe)
    elsewhere = Coordinator(tmp_path / "elsewhere")
    for use in (elsewhere.start, elsewhere.run, elsewhere.pause, elsewhere.status):
        with pytest.raises(FederationError, match="holds no coordinator"):
            use()
    with pytest.raises(FederationError, match="holds no coordinator"):
        elsewhere.invite("A")


def test_damaged_settings_are_told(coordinator, recipe):
    coordinator.init(recipe)
    coordinator.files.settings.write_text("{}")
    with pytest.raises(FederationError, match=r"coordinator\.json is damaged"):
        _ = coordinator.settings


def test_a_coordinator_that_is_not_running_says_so(coordinator, recipe):
    coordinator.init(recipe)
    status = coordinator.status()
    assert not status.running
    assert status.waits_for == "the coordinator is not running"
    assert (status.sites, status.rounds, status.minimum_sites) == ({}, 0, 2)


def test_another_installed_version_is_told_before_anything_starts(coordinator, recipe):
    settings = coordinator.init(recipe)
    other: CoordinatorSettings = settings.model_copy(update={"bundle_sha256": "0" * 64})
    other.write(coordinator.files)
    with pytest.raises(FederationError, match="the installed one is another"):
        coordinator.start()


@pytest.mark.parametrize("name", ["", "../x", " a", "a/b", "x" * 65])
def test_a_name_that_could_do_harm_is_not_invited(coordinator, recipe, name):
    coordinator.init(recipe)
    with pytest.raises(FederationError, match="name"):
        coordinator.invite(name)
    assert list(coordinator.files.invitations.iterdir()) == []


def test_a_revoked_key_is_never_approved_again(coordinator, recipe, key):
    coordinator.init(recipe)
    coordinator.approve("A", key)
    coordinator.revoke("A")
    assert coordinator.sites.sites() == ()
    assert [site.name for site in coordinator.sites.revoked()] == ["A"]
    with pytest.raises(FederationError, match="shut out of this federation for good"):
        coordinator.approve("A", key)


# A certificate of one's own -----------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "hospital authority"
    folder.mkdir()
    files = create_certificates(folder, "Hospital", ["fed.example"])
    return OwnCertificate(files.server, files.server_key, files.authority)


def test_sites_trust_the_authority_that_was_brought(coordinator, recipe, own):
    coordinator.init(recipe, Reach("fed.example", 9443, own_certificate=own))
    assert coordinator.invite("A").authority == own.authority.read_text()
    configuration = (coordinator.folder / "nginx" / "nginx.conf").read_text()
    assert f'ssl_certificate "{coordinator.folder / "own.pem"}"' in configuration


def test_a_certificate_that_sites_would_refuse_is_refused(tmp_path, coordinator, recipe, own):
    with pytest.raises(FederationError, match=r"Sites would refuse .* at other\.example"):
        coordinator.init(recipe, Reach("other.example", 9443, own_certificate=own))
    folder = tmp_path / "another"
    folder.mkdir()
    another = create_certificates(folder, "Another", ["fed.example"])
    for wrong, words in (
        (OwnCertificate(own.certificate, own.key, another.authority), "Sites would refuse"),
        (OwnCertificate(own.certificate, another.server_key, own.authority), "does not belong to"),
        (OwnCertificate(own.key, own.key, own.authority), "must be PEM files"),
        (OwnCertificate(tmp_path / "none", own.key, own.authority), "cannot be read"),
    ):
        with pytest.raises(FederationError, match=words):
            coordinator.init(recipe, Reach("fed.example", 9443, own_certificate=wrong))
    assert not coordinator.files.settings.exists()


def test_an_expired_certificate_is_refused(tmp_path, coordinator, recipe, monkeypatch):
    import napari_fedsam.federation.certificates as module

    folder = tmp_path / "old"
    folder.mkdir()
    monkeypatch.setattr(module, "_CLOCK_TOLERANCE", datetime.timedelta(days=30))
    files = create_certificates(folder, "Old", ["fed.example"], valid_days=-5)
    expired = OwnCertificate(files.server, files.server_key, files.authority)
    with pytest.raises(FederationError, match="expired"):
        coordinator.init(recipe, Reach("fed.example", 9443, own_certificate=expired))


def test_all_three_files_of_a_certificate_are_needed(tmp_path):
    assert own_certificate(None, None, None) is None
    with pytest.raises(FederationError, match="three files"):
        own_certificate(tmp_path / "a", None, tmp_path / "b")
