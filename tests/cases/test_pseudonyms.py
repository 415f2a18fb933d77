import hashlib
import hmac

import pytest

from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.pseudonyms import Pseudonyms, open_pseudonyms
from napari_fedsam.cases.store import CaseStore


def test_it_is_the_keyed_hash_of_the_text() -> None:
    secret = bytes(range(32))
    expected = hmac.new(secret, b"4711", hashlib.sha256).hexdigest()[:16]
    assert Pseudonyms(secret).of("4711") == expected


def test_padding_and_spelling_of_accents_do_not_matter() -> None:
    pseudonyms = Pseudonyms(bytes(32))
    assert pseudonyms.of("M\u00fcller ") == pseudonyms.of(" Mu\u0308ller")
    assert pseudonyms.of("Muller") != pseudonyms.of("M\u00fcller")


def test_it_is_the_same_after_reopening_and_differs_between_sites(tmp_path) -> None:
    here, there = CaseStore(tmp_path / "here"), CaseStore(tmp_path / "there")
    assert here.pseudonym("4711") == CaseStore(here.folder).pseudonym("4711")
    assert here.pseudonym("4711") != there.pseudonym("4711")


@pytest.mark.parametrize("damage", ["", "00", "g" * 64, "\udcff"])
def test_a_damaged_secret_is_not_replaced(tmp_path, damage) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(damage.encode("utf-8", "surrogateescape"))
    content = path.read_bytes()
    with pytest.raises(CaseStoreError, match="restore it from a backup"):
        open_pseudonyms(path)
    assert path.read_bytes() == content
