"""Switches the window from one of the machine's federations to another."""

import contextlib
from collections.abc import Callable

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QMessageBox

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.site import Site
from napari_fedsam.training.errors import TrainingError
from napari_fedsam.training.profile_folder import active_key
from napari_fedsam.widgets.session_panel import SessionPanel
from napari_fedsam.widgets.site_panel import SitePanel
from napari_fedsam.widgets.training_panel import TrainingPanel
from napari_fedsam.widgets.worklist_panel import WorklistPanel


class ProfileSwitch(QObject):
    """Puts away what was begun for one federation, then shows another one.

    Structures are numbered by each federation, so an open session or worklist stays with the one
    that it was begun for. Another program may switch, too: a window follows unless something is
    under way in it.

    Signals: `switched`, once the site panel shows the other federation.

    Parameters
    ----------
    site_panel : SitePanel
    session : AnnotationSession
    session_panel : SessionPanel
    worklist_panel : WorklistPanel
    training_panel : TrainingPanel
    tell : callable
        Shows an error.
    """

    switched = Signal()

    def __init__(
        self,
        site_panel: SitePanel,
        session: AnnotationSession,
        *,
        session_panel: SessionPanel,
        worklist_panel: WorklistPanel,
        training_panel: TrainingPanel,
        tell: Callable[[FedSamError], None],
    ) -> None:
        super().__init__()
        self._panel = site_panel
        self._session = session
        self._sessions = session_panel
        self._worklists = worklist_panel
        self._training = training_panel
        self._tell = tell
        site_panel.federation_wanted.connect(self.choose)

    def choose(self, name: str) -> None:
        """Switch to a federation by its name, asking first where something has to end."""
        panel = self._panel
        if not panel.is_changing and name != panel.site.state.federation:
            try:
                self._check()
            except FedSamError as error:
                self._tell(error)
            else:
                if self._agreed(name):
                    self._put_away(lambda: self._switch(name))
        panel.show_state()

    def follow(self) -> None:
        """Show the federation that another program has switched to; a timer calls this."""
        panel = self._panel
        busy = panel.site.holds_node or self._training.training.running
        if panel.is_changing or busy or self._session.has_work or self._worklists.worklist:
            return
        # Told by whoever reads it next for something that matters.
        with contextlib.suppress(TrainingError):
            key = active_key(panel.site.files.site)
            if key != panel.site.files.profile:
                home = panel.site.files.site
                panel.change("switching", lambda: Site(home, key), self._show)

    def _check(self) -> None:
        scan = self._session.scan
        if self._training.training.running:
            raise AnnotationError(
                "Training here is under way for this federation: wait until it is done or cancel "
                "it, then switch."
            )
        if scan is not None and self._session.has_work and not scan.source.exists():
            raise AnnotationError(
                f"{scan.name} does not come from a file, so its session cannot be kept: save its "
                "mask and remove its layer, then switch."
            )

    def _agreed(self, name: str) -> bool:
        present = self._panel.site.state.federation
        ends = []
        if self._panel.site.holds_node:
            ends.append(f"This window leaves '{present}'.")
        if self._session.has_work:
            ends.append(
                f"The open scan is closed; its session is kept with '{present}' and offered when "
                "you come back."
            )
        if not ends:
            return True
        yes = QMessageBox.StandardButton.Yes
        question = " ".join([*ends, f"Switch to '{name}'?"])
        return bool(QMessageBox.question(self._panel.section, "Switch", question) == yes)

    def _put_away(self, then: Callable[[], None]) -> None:
        self._worklists.put_away(lambda: self._sessions.put_away(then))

    def _switch(self, name: str) -> None:
        site, profiles = self._panel.site, self._panel.profiles

        def step() -> Site:
            if site.holds_node:
                site.leave()
            return Site(profiles.site, profiles.use(name).key)

        self._panel.change(f"switching to {name}", step, self._show)

    def _show(self, site: Site) -> None:
        self._panel.use_site(site)
        self._sessions.use_folder(site.files.sessions)
        self._worklists.use_folder(site.files.worklists)
        self.switched.emit()
