"""`napari-fedsam site profiles` and the like: the federations that a machine takes part in."""

from pathlib import Path
from typing import Annotated

import typer

from napari_fedsam.app.console import console
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.invitation_words import invitation_in_words
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.site import Site
from napari_fedsam.settings import home

profile_app = typer.Typer(no_args_is_help=True, help="The federations of this machine.")

SiteFolder = Annotated[
    Path | None, typer.Option("--folder", help="The site's folder; this user's by default.")
]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="A federation's name; the one in use by default.")
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A federation's name.")]


def chosen_site(folder: Path | None, profile: str | None) -> Site:
    """Return the site in the federation of this name, or in the one in use."""
    site = folder or home()
    return Site(site, None if profile is None else Profiles(site).named(profile).key)


def say(line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False)


def import_invitation(
    file: Annotated[Path, typer.Argument(help="The invitation that the coordinator sent.")],
    folder: SiteFolder = None,
    agreed: Annotated[
        str, typer.Option("--fingerprint", help="The fingerprint that the coordinator told you.")
    ] = "",
) -> None:
    """Take part in an invitation's federation, once its fingerprint was compared.

    A federation that is new here gets a profile of its own; the others stay as they are.
    """
    invitation = Invitation.read(file)
    profiles = Profiles(folder or home())
    for heading, text in invitation_in_words(invitation).items():
        say(f"{heading}: {text}")
    known = profiles.known(invitation)
    if caution := invitation.replaces(known):
        say(caution)
    if known is not None and known.same_coordinator(invitation):
        say("It is signed by the coordinator whose invitation is in use here.")
    else:
        _compare(invitation, file, agreed)
    imported = profiles.import_invitation(invitation)
    others = [each.name for each in profiles.all() if each.key != imported.key]
    if others and profiles.active.key == imported.key:
        say(f"'{imported.name}' is the federation in use now; the others stay as they are.")
    elif others:
        say(f"'{profiles.active.name}' stays in use; 'napari-fedsam site profile use' changes it.")
    say("Next: send the coordinator the file that 'napari-fedsam site key --out FILE' writes.")


def _compare(invitation: Invitation, file: Path, agreed: str) -> None:
    if not agreed:
        typer.confirm(
            f"Fingerprint {invitation.fingerprint}. Did the coordinator tell you the same by "
            "telephone?",
            abort=True,
        )
    elif agreed.strip().lower() != invitation.fingerprint:
        raise FedSamError(
            f"The fingerprint of {file.name} is {invitation.fingerprint}, not {agreed}; do not "
            "use it, and call the coordinator."
        )


def list_profiles(folder: SiteFolder = None) -> None:
    """List the federations of this machine; a star marks the one in use."""
    profiles = Profiles(folder or home())
    active = profiles.active.key
    for profile in profiles.all():
        if not profile.name:
            say("No federation yet: import the invitation that its coordinator sent you.")
            return
        mark = "*" if profile.key == active else " "
        try:
            state = Site(profiles.site, profile.key).state
            stands = f"{state.words}, at {state.address}, rounds joined {state.rounds_joined}"
        except FedSamError as error:
            stands = str(error)
        say(f"{mark} {profile.name}: {stands}")


@profile_app.command("use")
def use_profile(name: _Name, folder: SiteFolder = None) -> None:
    """Make another federation the one in use; windows without open work follow."""
    profiles = Profiles(folder or home())
    profile = profiles.use(name)
    say(f"'{profile.name}' is the federation in use now.")
    other = profiles.taking_part()
    if other is not None and other.key != profile.key:
        say(f"'{other.name}' still takes part; '{profile.name}' can join once it has left.")


@profile_app.command("remove")
def remove_profile(
    name: _Name,
    folder: SiteFolder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a federation from this machine: its keys, models, sessions and settings; no case."""
    profiles = Profiles(folder or home())
    profile = profiles.named(name)
    say(
        f"What goes: the invitation, the key, the settings, the model versions with their local "
        f"parameters, the sessions and the worklists of '{profile.name}'."
    )
    say("What stays: every case, the other federations, and the record of what was sent.")
    if not yes:
        typer.confirm(f"Remove '{profile.name}' from this machine?", abort=True)
    kept = profiles.remove(profile.name)
    say(f"'{profile.name}' is removed.")
    if kept is not None:
        say(f"The record of what was sent: {kept}")
