"""The invitation: whom to trust, where to connect, what to train, what may run; signed."""

import base64
import binascii
import datetime
import json
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_fedsam.federation.bundle import bundle_hash
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import short_fingerprint
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.federation.sites import SITE_NAME
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.recipe import Recipe

_DIGEST = ec.ECDSA(hashes.SHA384())


class Invitation(BaseModel):
    """One federation as one site sees it; holds no secrets.

    The signature shows that two invitations are from the same coordinator and that nothing was
    changed on the way. That the coordinator is who it says it is shows the fingerprint, which two
    people compare by telephone.

    Attributes
    ----------
    federation : str
        Name of the federation.
    site : str
        The coordinator's name for the invited site.
    address : str
        Coordinator as `host:port`.
    contact : str
        Whom to ask, in words (a name, a telephone number, an e-mail address).
    issued : datetime
        When it was made, UTC.
    authority : str
        PEM text of the certificate authority that signs the coordinator's certificate.
    bundle_sha256 : str
        SHA-256 of the only app bundle that may run at this site, 64 hex digits.
    recipe : Recipe
        The agreed recipe; messages under any other are refused.
    signer : str
        PEM text of the federation's public key.
    signature : str
        Base64 of the ECDSA signature over everything else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str = Field(min_length=1, max_length=100)
    site: str = Field(pattern=SITE_NAME)
    address: str = Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:/\s]+):\d{1,5}$")
    contact: str = Field(default="", max_length=200)
    issued: datetime.datetime
    authority: str = Field(pattern=r"^-----BEGIN CERTIFICATE-----")
    bundle_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    recipe: Recipe
    signer: str = Field(pattern=r"^-----BEGIN PUBLIC KEY-----")
    signature: str = ""

    @property
    def fingerprint(self) -> str:
        """The short form that both ends compare; it changes with any part of the invitation."""
        return short_fingerprint(self._signed_bytes())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an invitation file and check its signature.

        Raises
        ------
        FederationError
            When there is none, it is not an invitation, or it was changed.
        """
        try:
            invitation = cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FederationError(
                f"There is no invitation at {path}; ask the coordinator for one and import it."
            ) from error
        except OSError as error:
            raise FederationError(
                f"The invitation {path} cannot be read: {error.strerror}."
            ) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise FederationError(
                f"{path.name} is not an invitation of this version; ask the coordinator for a new "
                "one."
            ) from error
        invitation.check_signature()
        return invitation

    def write(self, path: Path) -> None:
        """Write the invitation as one JSON file."""
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")

    def signed(self, key: ec.EllipticCurvePrivateKey) -> Self:
        """Return the invitation with a signature; `key` belongs to `signer`."""
        signature = base64.b64encode(key.sign(self._signed_bytes(), _DIGEST)).decode("ascii")
        return self.model_copy(update={"signature": signature})

    def check_signature(self) -> None:
        """Refuse an invitation that was changed after it was signed.

        Raises
        ------
        FederationError
            Saying so.
        """
        try:
            key = serialization.load_pem_public_key(self.signer.encode("ascii"))
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(base64.b64decode(self.signature), self._signed_bytes(), _DIGEST)
        except (InvalidSignature, ValueError, binascii.Error) as error:
            raise FederationError(
                f"The invitation to '{self.federation}' was changed after the coordinator signed "
                "it; do not use it, and ask the coordinator for a new one."
            ) from error

    def same_coordinator(self, other: "Invitation") -> bool:
        """Tell whether another invitation was signed with the same key."""
        return self.signer == other.signer

    def replaces(self, known: "Invitation | None") -> str:
        """Say that another coordinator's invitation would be replaced, "" otherwise."""
        if known is None or self.same_coordinator(known):
            return ""
        return (
            f"Careful: there is an invitation to '{known.federation}' from another coordinator "
            f"({known.address}), whose place this one would take."
        )

    def install(self, files: SiteFiles) -> None:
        """Make this a profile's federation: invitation, CA certificate and recipe in its folder."""
        files.create()
        self.recipe.write(files.recipe)
        write_text_atomically(files.authority, self.authority)
        # Written last: its presence says that the others are there.
        self.write(files.invitation)

    def check_runs_here(self) -> None:
        """Refuse a federation whose program code is not the installed package's.

        Raises
        ------
        FederationError
            When the pinned bundle differs from what the installed package builds.
        """
        if self.bundle_sha256 != bundle_hash():
            raise FederationError(
                f"The federation '{self.federation}' runs another version of napari-fedsam's app "
                "than the one installed here; install the version that its coordinator uses."
            )

    def _signed_bytes(self) -> bytes:
        content = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
