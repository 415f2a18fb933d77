"""`napari-fedsam coordinator` and `napari-fedsam site`: the federation without a window."""

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_fedsam.app.console import console
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.profile import SiteProfile
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.settings import home

coordinator_app = typer.Typer(no_args_is_help=True, help="Run a federation.")
site_app = typer.Typer(no_args_is_help=True, help="Take part in a federation.")

CoordinatorFolder = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
SiteFolder = Annotated[
    Path | None, typer.Option("--folder", help="The site's folder; this user's by default.")
]

_POLL_SECONDS = 0.5


def _site(folder: Path | None) -> Site:
    return Site(folder or home())


def _say(line: str) -> None:
    console.print(line, markup=False)


@coordinator_app.command()
def init(
    folder: CoordinatorFolder,
    recipe: Annotated[Path, typer.Option(help="The recipe file (JSON).")],
    host: Annotated[str, typer.Option(help="Name or address that sites connect to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="SuperLink's port.")] = 9092,
) -> None:
    """Set up a federation: certificates, pinned app bundle, profile for the sites."""
    Coordinator(folder).init(Recipe.read(recipe), host, port)
    _say(f"Send {folder / 'site-profile.json'} to the sites; it holds no secret.")


@coordinator_app.command()
def approve(
    folder: CoordinatorFolder,
    site: Annotated[str, typer.Argument(help="The site's name.")],
    key: Annotated[Path, typer.Argument(help="The site's public key file.")],
) -> None:
    """Let a site in by its public key."""
    if not key.is_file():
        raise typer.BadParameter(f"there is no key file {key}")
    Coordinator(folder).approve(site, key.read_text(encoding="ascii", errors="replace"))
    _say(f"{site} may join now.")


@coordinator_app.command()
def revoke(
    folder: CoordinatorFolder,
    site: Annotated[str, typer.Argument(help="The site's name.")],
) -> None:
    """Shut a site out, also while it is connected; its key cannot be used again."""
    Coordinator(folder).revoke(site)
    _say(f"{site} is shut out.")


@coordinator_app.command("start")
def start_coordinator(
    folder: CoordinatorFolder,
    detach: Annotated[bool, typer.Option("--detach", help="Return and leave it running.")] = False,
) -> None:
    """Start SuperLink; stays in the foreground until interrupted, or detaches."""
    coordinator = Coordinator(folder)
    coordinator.start(detached=detach)
    _say(f"Listening on {coordinator.settings.address}.")
    if not detach:
        try:
            coordinator.wait()
        except KeyboardInterrupt:
            coordinator.stop()


@coordinator_app.command("run")
def run_rounds(
    folder: CoordinatorFolder,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 1,
) -> None:
    """Run rounds with the sites that are connected, once there are enough."""
    Coordinator(folder).run(rounds, tell=_say)


@coordinator_app.command("status")
def coordinator_status(folder: CoordinatorFolder) -> None:
    """Show the sites, the rounds, and what a round would wait for."""
    status = Coordinator(folder).status()
    _say(f"{status.federation} at {status.address}: {'running' if status.running else 'stopped'}")
    for name, connected in status.sites.items():
        _say(f"  {name}: {'connected' if connected else 'not connected'}")
    _say(f"  rounds so far: {status.rounds}")
    if status.waits_for:
        _say(f"  a round would wait: {status.waits_for}")


@coordinator_app.command("stop")
def stop_coordinator(folder: CoordinatorFolder) -> None:
    """End every process of the coordinator."""
    Coordinator(folder).stop()
    _say("The coordinator is stopped.")


@site_app.command("key")
def show_key(folder: SiteFolder = None) -> None:
    """Show the site's public key, for the coordinator to approve."""
    _say(_site(folder).public_key)


@site_app.command("install")
def install_profile(
    profile: Annotated[Path, typer.Argument(help="The profile that the coordinator sent.")],
    folder: SiteFolder = None,
) -> None:
    """Take over a federation's profile."""
    read = SiteProfile.read(profile)
    _site(folder).install(read)
    _say(f"This site belongs to '{read.federation}' at {read.address}.")


@site_app.command()
def join(
    folder: SiteFolder = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return and stay joined.")] = False,
) -> None:
    """Join the federation; stays in the foreground until interrupted, or detaches."""
    site = _site(folder)
    site.join(detached=detach)
    try:
        _follow(site, until_joined=detach)
    except KeyboardInterrupt:
        site.leave()
        _say("Left the federation.")


def _follow(site: Site, *, until_joined: bool) -> None:
    """Print the state in words whenever it changes, until the site is joined or failed."""
    told = ""
    while True:
        site.refresh()
        if site.state.words != told:
            told = site.state.words
            _say(told)
        if site.state.phase is Phase.ERROR:
            raise typer.Exit(1)
        if until_joined and site.joined:
            return
        time.sleep(_POLL_SECONDS)


@site_app.command()
def leave(folder: SiteFolder = None) -> None:
    """Leave the federation and end every process of it."""
    _site(folder).leave()
    _say("Left the federation; no process of it is left.")


@site_app.command("status")
def site_status(folder: SiteFolder = None) -> None:
    """Show how the site stands."""
    state = _site(folder).state
    _say(f"{state.federation or 'no federation'}: {state.words}")
    if state.message:
        _say(state.message)
    _say(f"rounds joined {state.rounds_joined}, bytes sent {state.bytes_sent}")
