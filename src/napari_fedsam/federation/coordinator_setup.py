"""Setting up a coordinator's folder: recipe, certificates, keys, pinned bundle."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from napari_fedsam import __version__
from napari_fedsam.federation.bundle import build_bundle
from napari_fedsam.federation.certificates import (
    OwnCertificate,
    create_certificates,
    install_own_certificate,
)
from napari_fedsam.federation.coordinator_settings import (
    CoordinatorFiles,
    CoordinatorSettings,
    Proxy,
    is_loopback,
)
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import ensure_signing_key
from napari_fedsam.files import atomic_path, make_private_folder
from napari_fedsam.personalization.methods import method_named
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.registry import available_models


@dataclass(frozen=True)
class Reach:
    """How sites reach the coordinator.

    Attributes
    ----------
    host : str
        Host name or IP address that sites connect to.
    port : int
        Port that sites connect to.
    further_hosts : sequence of str
        Further names and addresses for the certificate.
    proxy : {"none", "nginx", "own"}, optional
        What stands before SuperLink; by default nothing for a loopback host, else nginx.
    superlink_port : int, optional
        Port of SuperLink on loopback; by default the next one, or `port` itself without a proxy.
    listen : str
        Address that nginx listens on.
    own_certificate : OwnCertificate, optional
        Certificate that the proxy presents; by default one signed by a new authority.
    """

    host: str = "127.0.0.1"
    port: int = 9092
    further_hosts: Sequence[str] = ()
    proxy: Proxy | None = None
    superlink_port: int | None = None
    listen: str = "0.0.0.0"  # noqa: S104 - what nginx exposes is meant for the outside
    own_certificate: OwnCertificate | None = None

    @property
    def chosen_proxy(self) -> Proxy:
        """The proxy, the default resolved."""
        return self.proxy or ("none" if is_loopback(self.host) else "nginx")

    @property
    def chosen_superlink_port(self) -> int:
        """SuperLink's port, the default resolved."""
        if self.chosen_proxy == "none":
            return self.port
        return self.superlink_port or self.port + 1

    def check(self) -> None:
        """Refuse what cannot work.

        Raises
        ------
        FederationError
            Naming what contradicts what.
        """
        if self.chosen_proxy == "none":
            if not is_loopback(self.host):
                raise FederationError(
                    f"SuperLink listens on this machine alone, so sites cannot reach {self.host} "
                    "without a reverse proxy; choose the proxy 'nginx', or 'own'."
                )
            if self.own_certificate is not None:
                raise FederationError(
                    "Without a reverse proxy nothing would present your certificate; choose the "
                    "proxy 'nginx', or leave the certificate out."
                )
        elif self.chosen_superlink_port == self.port:
            raise FederationError(
                f"The proxy and SuperLink cannot share the port {self.port}; give SuperLink "
                "another."
            )


def set_up(
    files: CoordinatorFiles, recipe: Recipe, reach: Reach, *, name: str, contact: str
) -> CoordinatorSettings:
    """Fill a new coordinator's folder.

    Raises
    ------
    FederationError
        When the folder holds a coordinator already, or something cannot work.
    """
    if files.settings.exists():
        raise FederationError(f"{files.folder} holds a coordinator already; choose another folder.")
    if not method_named(recipe.method).federates:
        raise FederationError(
            f"The method {recipe.method} exchanges nothing between sites, so a federation has no "
            "use for it; choose another method in the recipe."
        )
    _check_base_model(recipe.base_model)
    reach.check()
    bundle = build_bundle()
    settings = _settings(recipe, reach, name, contact, hashlib.sha256(bundle).hexdigest())
    make_private_folder(files.folder)
    make_private_folder(files.invitations)
    if reach.own_certificate is not None:
        install_own_certificate(files.folder, reach.own_certificate, reach.host)
    create_certificates(files.folder, settings.federation, [reach.host, *reach.further_hosts])
    ensure_signing_key(files.signing_key)
    recipe.write(files.recipe)
    with atomic_path(files.bundle) as temporary:
        temporary.write_bytes(bundle)
    settings.write(files)
    return settings


def _check_base_model(name: str) -> None:
    """Every site is to hold the same frozen parameters; a path leads to its own file at each."""
    names = [info.name for info in available_models()]
    if name not in names:
        raise FederationError(
            f"The recipe's base_model {name} may be another one at each site; choose one of "
            f"{', '.join(names)}."
        )


def _settings(
    recipe: Recipe, reach: Reach, name: str, contact: str, bundle_sha256: str
) -> CoordinatorSettings:
    try:
        return CoordinatorSettings(
            federation=name or recipe.name,
            host=reach.host,
            port=reach.port,
            superlink_port=reach.chosen_superlink_port,
            proxy=reach.chosen_proxy,
            listen=reach.listen,
            contact=contact,
            own_certificate=reach.own_certificate is not None,
            bundle_sha256=bundle_sha256,
            version=__version__,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise FederationError(
            f"The coordinator's {first['loc'][0]} cannot be {first['input']!r}: {first['msg']}."
        ) from error


def own_certificate(
    certificate: Path | None, key: Path | None, authority: Path | None
) -> OwnCertificate | None:
    """Return the certificate that was brought, None when there is none.

    Raises
    ------
    FederationError
        When one of the three files was left out.
    """
    given = [path for path in (certificate, key, authority) if path is not None]
    if not given:
        return None
    if certificate is None or key is None or authority is None:
        raise FederationError(
            "Your own certificate needs three files: the certificate, its private key, and the "
            "certificate of the authority that signed it."
        )
    return OwnCertificate(certificate, key, authority)
