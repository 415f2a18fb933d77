"""`napari-fedsam coordinator` and `napari-fedsam site`: the federation without a window."""

import signal
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError
from safetensors.numpy import save_file

from napari_fedsam.app.output_files import ready_file
from napari_fedsam.app.profiles_cli import (
    ProfileName,
    SiteFolder,
    chosen_site,
    import_invitation,
    list_profiles,
    profile_app,
    say,
)
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.audit import AuditLine
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_report import write_report
from napari_fedsam.federation.coordinator_setup import Reach, own_certificate
from napari_fedsam.federation.keys import fingerprint
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.sent import arrays_of, open_sent
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.settings import home

coordinator_app = typer.Typer(no_args_is_help=True, help="Run a federation.")
site_app = typer.Typer(no_args_is_help=True, help="Take part in a federation.")
site_app.command("import")(import_invitation)
site_app.command("profiles")(list_profiles)
site_app.add_typer(profile_app, name="profile")

CoordinatorFolder = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
SiteName = Annotated[str, typer.Argument(help="The site's name.")]

_POLL_SECONDS = 0.5
_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00")


@coordinator_app.command("recipe")
def new_recipe(
    file: Annotated[Path, typer.Argument(help="The recipe file to write.")],
    name: Annotated[str, typer.Option(help="The task in words.")],
    structure: Annotated[list[str], typer.Option(help="A structure's name; repeatable.")],
    method: Annotated[str, typer.Option(help="How to personalise.")] = "pfedsam",
) -> None:
    """Write a recipe with the defaults, to be read and edited."""
    if file.exists():
        raise FedSamError(f"{file} exists already; choose another name.")
    ready_file(file)
    try:
        structures = tuple(
            Structure(value=value, name=each, color=_COLORS[(value - 1) % len(_COLORS)])
            for value, each in enumerate(structure, start=1)
        )
        recipe = Recipe(name=name, structures=structures, method=method)
    except ValidationError as error:
        raise FedSamError(f"This is no recipe: {error.errors()[0]['msg']}.") from error
    recipe.write(file)
    say(f"Read and edit {file}; its fields are explained in docs/federation.md.")


@coordinator_app.command()
def init(
    folder: CoordinatorFolder,
    recipe: Annotated[Path, typer.Option(help="The recipe file (JSON).")],
    host: Annotated[str, typer.Option(help="Name or address that sites connect to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port that sites connect to.")] = 9092,
    also: Annotated[
        list[str] | None,
        typer.Option(help="A further name or address for the certificate; repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="The federation's name; the recipe's by default.")] = "",
    contact: Annotated[str, typer.Option(help="Whom sites ask: name, telephone, e-mail.")] = "",
    proxy: Annotated[
        Literal["none", "nginx", "own"] | None,
        typer.Option(help="What stands before SuperLink; nginx unless the host is loopback."),
    ] = None,
    superlink_port: Annotated[int | None, typer.Option(help="SuperLink's port.")] = None,
    listen: Annotated[str, typer.Option(help="Address that nginx listens on.")] = "0.0.0.0",  # noqa: S104
    certificate: Annotated[Path | None, typer.Option(help="Your own certificate (PEM).")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    certificate_authority: Annotated[
        Path | None, typer.Option(help="The authority that signed it (PEM).")
    ] = None,
) -> None:
    """Set up a federation: certificates, signing key, pinned app bundle, no sites yet."""
    reach = Reach(
        host=host,
        port=port,
        further_hosts=tuple(also or ()),
        proxy=proxy,
        superlink_port=superlink_port,
        listen=listen,
        own_certificate=own_certificate(certificate, certificate_key, certificate_authority),
    )
    coordinator = Coordinator(folder)
    agreed = Recipe.read(recipe)
    settings = coordinator.init(agreed, reach, name=name, contact=contact)
    say(f"'{settings.federation}' at {settings.address}; app bundle {settings.bundle_sha256}.")
    if caution := agreed.federation.caution(agreed.minimum_sites):
        say(f"Mind: {caution}")
    say(f"Next: napari-fedsam coordinator invite {folder} SITE")


@coordinator_app.command()
def invite(folder: CoordinatorFolder, site: SiteName) -> None:
    """Make a site's invitation, a file that holds no secret."""
    coordinator = Coordinator(folder)
    invitation = coordinator.invite(site)
    say(f"Send {coordinator.invitation_path(site)} to {site}; it holds no secret.")
    say(f"Its fingerprint, to be compared by telephone: {invitation.fingerprint}")


@coordinator_app.command()
def approve(
    folder: CoordinatorFolder,
    site: SiteName,
    key: Annotated[Path, typer.Argument(help="The site's public key file.")],
) -> None:
    """Let a site in by its public key."""
    if not key.is_file():
        raise typer.BadParameter(f"there is no key file {key}")
    approved = Coordinator(folder).approve(site, key.read_text(encoding="ascii", errors="replace"))
    say(f"{site} may join now, with the key {fingerprint(approved.public_key)}.")


@coordinator_app.command()
def revoke(folder: CoordinatorFolder, site: SiteName) -> None:
    """Shut a site out, also while it is connected; its key cannot be used again."""
    Coordinator(folder).revoke(site)
    say(f"{site} is shut out.")


@coordinator_app.command("start")
def start_coordinator(
    folder: CoordinatorFolder,
    detach: Annotated[bool, typer.Option("--detach", help="Return and leave it running.")] = False,
) -> None:
    """Start SuperLink and the proxy; stays in the foreground until interrupted, or detaches."""
    coordinator = Coordinator(folder)
    coordinator.start(detached=detach)
    say(f"Sites reach it at {coordinator.settings.address}.")
    if not detach:
        try:
            coordinator.wait(tell=say)
        except KeyboardInterrupt:
            coordinator.stop()


@coordinator_app.command("run")
def run_rounds(
    folder: CoordinatorFolder,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How many rounds; the recipe's rest by default.")
    ] = None,
) -> None:
    """Run rounds with the sites that are connected, once there are enough; ends a pause."""
    # A terminal that is closed stops the run as Ctrl-C does, unless `nohup` keeps it.
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is signal.SIG_DFL:
        signal.signal(hang_up, signal.default_int_handler)
    try:
        results = Coordinator(folder).run(rounds, tell=say)
    except KeyboardInterrupt:
        say("Interrupted; 'napari-fedsam coordinator run' goes on after the newest round.")
        raise typer.Exit(1) from None
    say(f"{sum(result.aggregated for result in results)} rounds were run.")


@coordinator_app.command("pause")
def pause_rounds(folder: CoordinatorFolder) -> None:
    """Let the present round end and start no other; 'run' goes on."""
    Coordinator(folder).pause()
    say("No further round will start; go on with 'napari-fedsam coordinator run'.")


@coordinator_app.command("status")
def coordinator_status(folder: CoordinatorFolder) -> None:
    """Show the sites, the rounds, and what a round would wait for."""
    coordinator = Coordinator(folder)
    status = coordinator.status()
    paused = ", paused" if status.paused else ""
    state = "running" if status.running else "stopped"
    say(f"{status.federation} at {status.address}: {state}{paused}")
    for name, connected in status.sites.items():
        say(f"  {name}: {'connected' if connected else 'not connected'}")
    best = f", best so far {status.best_round}" if status.best_round else ""
    say(f"  rounds so far: {status.rounds}{best}")
    for result in coordinator.results()[-1:]:
        say(f"  {result.summary}")
    if status.waits_for:
        say(f"  a round would wait: {status.waits_for}")


@coordinator_app.command("report")
def report(
    folder: CoordinatorFolder,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a report of all rounds: Dice, participation, bytes, norms, left out, privacy."""
    path = write_report(Coordinator(folder), ready_file(out))
    say(f"Report: {path}")


@coordinator_app.command("stop")
def stop_coordinator(folder: CoordinatorFolder) -> None:
    """End every process of the coordinator."""
    Coordinator(folder).stop()
    say("The coordinator is stopped.")


@site_app.command("key")
def show_key(
    folder: SiteFolder = None,
    profile: ProfileName = None,
    out: Annotated[Path | None, typer.Option(help="Write it into this file, too.")] = None,
) -> None:
    """Show the site's public key, for the coordinator to approve."""
    if out is not None:
        ready_file(out)
    key = chosen_site(folder, profile).public_key
    say(key)
    say(f"Its fingerprint, to be compared by telephone: {fingerprint(key)}")
    if out is not None:
        write_text_atomically(out, key + "\n")


@site_app.command()
def join(folder: SiteFolder = None, profile: ProfileName = None) -> None:
    """Join the federation and return; the site takes part until 'site leave'."""
    _take_part(chosen_site(folder, profile), detached=True)


@site_app.command("run")
def run_site(folder: SiteFolder = None, profile: ProfileName = None) -> None:
    """Take part until interrupted, as a service does."""
    # A shell lets what a script runs in the background ignore this, but a service has to leave.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _take_part(chosen_site(folder, profile), detached=False)


def _take_part(site: Site, *, detached: bool) -> None:
    site.join(detached=detached)
    try:
        _follow(site, until_joined=detached)
    except KeyboardInterrupt:
        site.leave()
        say("Left the federation.")


def _follow(site: Site, *, until_joined: bool) -> None:
    """Print the state in words whenever it changes, until the site is joined or failed."""
    told = ""
    while True:
        site.refresh()
        if site.state.words != told:
            told = site.state.words
            say(told)
        if site.state.phase is Phase.ERROR:
            raise typer.Exit(1)
        if until_joined and site.joined:
            return
        time.sleep(_POLL_SECONDS)


@site_app.command()
def leave(folder: SiteFolder = None, profile: ProfileName = None) -> None:
    """Leave the federation that takes part, whichever is in use, and end every process of it."""
    taking_part = Profiles(folder or home()).taking_part()
    if profile is None and taking_part is not None:
        profile = taking_part.name
    chosen_site(folder, profile).leave()
    say("Left the federation; no process of it is left.")


@site_app.command("status")
def site_status(folder: SiteFolder = None, profile: ProfileName = None) -> None:
    """Show how the site stands."""
    state = chosen_site(folder, profile).state
    say(f"{state.federation or 'no federation'}: {state.words}")
    if state.message:
        say(state.message)
    say(f"rounds joined {state.rounds_joined}, bytes sent {state.bytes_sent}")
    other = Profiles(folder or home()).taking_part()
    if other is not None and other.name != state.federation:
        say(f"'{other.name}' takes part on this machine now.")


@site_app.command("test")
def check_connection(folder: SiteFolder = None, profile: ProfileName = None) -> None:
    """Test name, port, certificate, clock, key, recipe and app, and explain what fails."""
    passed = True
    for check in chosen_site(folder, profile).test_connection():
        say(f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.words}")
        passed = passed and check.passed
    if not passed:
        raise typer.Exit(1)


@site_app.command("settings")
def change_settings(
    folder: SiteFolder = None,
    profile: ProfileName = None,
    pause: Annotated[
        bool | None, typer.Option("--pause/--resume", help="Decline rounds, or take part again.")
    ] = None,
    hours: Annotated[
        str | None, typer.Option(help="Train in these hours, such as 22:00-06:00; '' for all.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads for training.")] = None,
    new_cases: Annotated[
        int | None, typer.Option(help="New training cases to wait for before training.")
    ] = None,
    when_idle: Annotated[
        bool | None,
        typer.Option("--when-idle/--when-busy", help="Train only while the computer is idle."),
    ] = None,
    ask_first: Annotated[
        bool | None,
        typer.Option("--ask-first/--use-at-once", help="Ask before a new model is used."),
    ] = None,
) -> None:
    """Show or change when this site trains, and with how much of the machine."""
    given = {
        "paused": pause,
        "hours": hours,
        "threads": threads,
        "new_cases": new_cases,
        "when_idle": when_idle,
        "ask_first": ask_first,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    site = chosen_site(folder, profile)
    settings = site.change_settings(**changes) if changes else site.settings
    for name, value in settings.model_dump().items():
        say(f"{name}: {value}")


@site_app.command("audit")
def audit(
    folder: SiteFolder = None,
    profile: ProfileName = None,
    export: Annotated[Path | None, typer.Option(help="Copy the log into this file.")] = None,
    show: Annotated[int | None, typer.Option("--open", help="Open a message by number.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --open: write its arrays (safetensors).")
    ] = None,
) -> None:
    """List every message that left this site, export the list, or open one."""
    for file in (export, out):
        if file is not None:
            ready_file(file)
    site = chosen_site(folder, profile)
    lines = site.audit()
    if show is not None:
        if not 1 <= show <= len(lines):
            raise FedSamError(f"There is no message {show}; the log has {len(lines)}.")
        _open_message(site, lines[show - 1], out)
        return
    for number, line in enumerate(lines, start=1):
        what = line.error or f"{len(line.arrays)} arrays, {len(line.numbers)} numbers"
        say(
            f"{number:4} {line.time} round {line.round} {line.purpose}: {what}, {line.bytes} "
            f"bytes, sha256 {line.sha256[:12]}"
        )
    if export is not None:
        text = "".join(f"{line.model_dump_json()}\n" for line in lines)
        write_text_atomically(export, text)
        say(f"{len(lines)} lines in {export}.")


def _open_message(site: Site, line: AuditLine, out: Path | None) -> None:
    arrays = arrays_of(open_sent(site.files.sent, line))
    say(f"Round {line.round}, {line.purpose}, {line.bytes} bytes; unchanged since it was sent.")
    for name, array in arrays.items():
        say(f"  {name} {array.shape} {array.dtype}")
    for name, number in line.numbers.items():
        say(f"  {name} = {number:g}")
    if out is not None:
        save_file(arrays, out)
        say(f"Arrays: {out}")
