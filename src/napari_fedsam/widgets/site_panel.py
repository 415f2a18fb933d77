"""Binds the federation section to a site; nothing here waits for a process or the network.

The site is that of the federation in use; `profile_switch` shows another one.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.connection_test import Check
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_settings import SiteSettings
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.federation_audit import AuditDialog
from napari_fedsam.widgets.federation_checks import ChecksDialog
from napari_fedsam.widgets.federation_invitation import agree_to_invitation
from napari_fedsam.widgets.federation_section import FederationSection


class SitePanel(QObject):
    """Joins and leaves in a thread, and shows the site's state whenever `refresh` is called.

    Signals: `invitation_imported` (to the federation that is shown), `federation_wanted` (name).
    """

    invitation_imported = Signal()
    federation_wanted = Signal(str)

    def __init__(
        self,
        site: Site,
        section: FederationSection,
        background: Background,
        tell: Callable[[FedSamError], None],
    ) -> None:
        super().__init__()
        self.site = site
        self.profiles = Profiles(site.files.site)
        self.section = section
        self._background = background
        self._tell = tell
        self._changing = ""
        section.join_wanted.connect(self.join)
        section.leave_wanted.connect(self.leave)
        section.invitation_chosen.connect(self.import_invitation)
        section.federation_chosen.connect(self.federation_wanted)
        section.key_wanted.connect(self._copy_key)
        section.test_wanted.connect(self.test_connection)
        section.audit_wanted.connect(self.show_audit)
        section.setting_wanted.connect(self._set)
        self.show_state()

    @property
    def is_changing(self) -> bool:
        """Whether a join, leave or switch is under way."""
        return bool(self._changing)

    def refresh(self) -> None:
        """Bring the section up to date; a timer calls this."""
        # A join or leave refreshes the site itself, in its own thread.
        if not self._changing:
            self.site.refresh()
            self.show_state()

    def join(self) -> None:
        """Start to take part."""
        self.change("starting to take part", self.site.join)

    def leave(self) -> None:
        """Stop taking part; ends the background processes."""
        self.change("leaving", self.site.leave)

    def import_invitation(self, path: Path) -> None:
        """Renew a federation's invitation or add a federation, once a person has compared it."""
        try:
            invitation = Invitation.read(path)
            known, beside = self.profiles.known(invitation), self.site.state.federation
            if not agree_to_invitation(invitation, known, beside, self.section):
                return
            imported = self.profiles.import_invitation(invitation, use=False)
        except FedSamError as error:
            self._tell(error)
        else:
            self.site.refresh()
            if imported.key == self.site.files.profile:
                self.invitation_imported.emit()
            else:
                self.federation_wanted.emit(imported.name)
        self.show_state()

    def use_site(self, site: Site) -> None:
        """Show the site in another federation."""
        self.site = site
        self.show_state()

    def test_connection(self) -> ChecksDialog:
        """Test the connection in a thread, and show each step."""
        # Not deleted when it is closed: the thread may not have ended by then.
        dialog = ChecksDialog(self.section)

        def show(checks: list[Check]) -> None:
            for check in checks:
                dialog.show_check(check)
            dialog.finish()

        def fail(error: FedSamError) -> None:
            dialog.close()
            self._tell(error)

        dialog.show()
        self._background.run(
            "connection test", lambda: list(self.site.test_connection()), show, fail
        )
        return dialog

    def show_audit(self) -> AuditDialog:
        """Show every message that left this site."""
        dialog = AuditDialog(self.site.audit(), self.site.files.sent, self.section)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.show()
        return dialog

    def close(self) -> None:
        """Leave what was joined here, without keeping the window waiting."""
        if self.site.holds_node or self._changing:
            # Not a daemon: the processes are gone before the program is.
            threading.Thread(target=self.site.leave, name="napari-fedsam-leave").start()

    def change(
        self, doing: str, step: Callable[[], Any], done: Callable[[Any], None] = lambda _: None
    ) -> None:
        """Run a step in a thread, its words being shown meanwhile; nothing while another runs."""
        if self._changing:
            return
        self._changing = doing
        self.show_state()

        def changed(result: Any) -> None:
            self._changing = ""
            done(result)
            self.refresh()

        def failed(error: FedSamError) -> None:
            self._changing = ""
            self.refresh()
            self._tell(error)

        self._background.run("federation", step, changed, failed)

    def _settings(self) -> SiteSettings:
        try:
            return self.site.settings
        except FedSamError:
            # Told where it matters: when a setting is changed, and when a round is declined.
            return SiteSettings()

    def _set(self, name: str, wanted: bool) -> None:
        try:
            self.site.change_settings(**{name: wanted})
        except FedSamError as error:
            self._tell(error)

    def _copy_key(self) -> None:
        try:
            self.section.show_key(self.site.public_key)
        except FedSamError as error:
            self._tell(error)

    def show_state(self) -> None:
        """Show where the site stands, and which federations there are."""
        self.section.show_federations([profile.name for profile in self.profiles.all()])
        self.section.show_state(self.site.state, changing=self._changing, settings=self._settings())
