"""The dock widget: annotate a scan with a model that this site helps to train."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QTimer, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.model_source import SITE_MODEL, ModelSource
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.worklist import Worklist
from napari_fedsam.annotation.worklist_file import WorklistFolder
from napari_fedsam.cases.case import Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.site import Site
from napari_fedsam.settings import home, user_name
from napari_fedsam.widgets.actions import Actions
from napari_fedsam.widgets.answer_ahead import AnswerAhead
from napari_fedsam.widgets.background import Background, DiskLane
from napari_fedsam.widgets.case_panel import CasePanel
from napari_fedsam.widgets.cases_section import CasesSection
from napari_fedsam.widgets.cursor_preview import CursorPreview
from napari_fedsam.widgets.encode_ahead import EncodeAhead
from napari_fedsam.widgets.federation_section import FederationSection
from napari_fedsam.widgets.inference import InferenceLoop
from napari_fedsam.widgets.keys import ACTION_CALLS, bind_keys, unbind_keys
from napari_fedsam.widgets.link_panel import LinkPanel
from napari_fedsam.widgets.link_section import LinkSection
from napari_fedsam.widgets.mask_prompts import MaskPrompts
from napari_fedsam.widgets.model_loading import ModelLoading
from napari_fedsam.widgets.model_section import ModelSection
from napari_fedsam.widgets.open_scans import OpenScans
from napari_fedsam.widgets.profile_switch import ProfileSwitch
from napari_fedsam.widgets.prompt_section import PromptSection
from napari_fedsam.widgets.propose_ahead import ProposeAhead
from napari_fedsam.widgets.scan_display import ScanDisplay
from napari_fedsam.widgets.scan_opening import ScanOpening
from napari_fedsam.widgets.scan_section import ScanSection
from napari_fedsam.widgets.section_stack import SectionStack
from napari_fedsam.widgets.session_panel import SessionPanel
from napari_fedsam.widgets.session_section import SessionSection
from napari_fedsam.widgets.site_panel import SitePanel
from napari_fedsam.widgets.structure_panel import StructurePanel
from napari_fedsam.widgets.structure_section import StructureSection
from napari_fedsam.widgets.training_panel import TrainingPanel
from napari_fedsam.widgets.training_section import TrainingSection
from napari_fedsam.widgets.volume_panel import VolumePanel
from napari_fedsam.widgets.volume_section import VolumeSection
from napari_fedsam.widgets.window_drag import WindowDrag
from napari_fedsam.widgets.worklist_panel import WorklistPanel
from napari_fedsam.widgets.worklist_section import WorklistSection

if TYPE_CHECKING:
    from napari.viewer import Viewer

REFRESH_MS = 1000
"""How often the site's state and its active model version are looked at."""


class FedSamWidget(Actions):
    """Annotation, cases, model and federation of one site, docked in a napari window.

    Parameters
    ----------
    viewer : napari.Viewer
    site_folder : Path, optional
        The site's home folder; by default `settings.home()`.

    Signals: `idle_changed` fires whenever background work starts or ends (see `idle`).
    """

    idle_changed = Signal()

    def __init__(self, viewer: "Viewer", site_folder: Path | None = None) -> None:
        super().__init__()
        self.viewer = viewer
        self.site_folder = Path(site_folder) if site_folder is not None else home()
        self.background = Background(self)
        self.store = CaseStore(self.site_folder / "cases")
        self.session = AnnotationSession(
            self.store, annotator=user_name(), disk=DiskLane(self.background)
        )
        self._is_closed = False
        self._display = ScanDisplay(viewer, self.session)
        self._cursor_preview = CursorPreview(viewer, self.session, self._display.prompts)
        self._answer_ahead = AnswerAhead(viewer, self.session, self._display.prompts)
        self._window_drag = WindowDrag(viewer, self.session.view)
        self._inference = InferenceLoop(self.session, self.background)
        self._ahead = EncodeAhead(self.session, self._inference)
        self._models = ModelLoading(ModelSource(self.site_folder), self.background)
        self._build_sections()
        self._scans = OpenScans(viewer, self._display, self.scan_section, self._tell)
        site = Site(self.site_folder, self._models.source.profile)
        self._site_panel = SitePanel(site, self.federation_section, self.background, self._tell)
        self._session_panel = SessionPanel(
            self.session,
            self.session_section,
            site.files.sessions,
            self.background,
            self._tell,
            open_scan=self.open_scan,
            take_off=self._display.take_off,
        )
        self._proposals = ProposeAhead(self.session, self._ahead, self._load_global)
        self._worklist_panel = WorklistPanel(
            self.session,
            self.worklist_section,
            WorklistFolder(site.files.worklists),
            self._proposals,
            self.background,
            tell=self._tell,
            open_scan=self.open_scan,
            expect=self._session_panel.expect,
            take_off=self._display.take_off,
        )
        self._volume_panel = VolumePanel(
            self.session, self.volume_section, self.background, self._tell
        )
        self._mask_prompts = MaskPrompts(viewer, self.session, self.background, self._tell)
        self._case_panel = CasePanel(self.session, self.cases_section, self.background, self._tell)
        self._structure_panel = StructurePanel(
            self.session,
            self.structure_section,
            self._model_source,
            self.background,
            self._tell,
        )
        self._training_panel = TrainingPanel(
            self._model_source,
            self.store,
            self.training_section,
            self._tell,
            ask_first=lambda: self.site.settings.ask_first,
        )
        self._profile_switch = ProfileSwitch(
            self._site_panel,
            self.session,
            session_panel=self._session_panel,
            worklist_panel=self._worklist_panel,
            training_panel=self._training_panel,
            tell=self._tell,
        )
        links = self.session, self.link_section, self._scans, self._display.prompts
        self._links = LinkPanel(viewer, *links, owner=self)
        self._connect()
        self._lay_out()
        bind_keys(viewer, self)
        # napari's own key bindings know no question mark.
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._canvas.installEventFilter(self)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._refresh)
        self._timer.start(REFRESH_MS)
        self._models.load(SITE_MODEL)
        self._scans.choose_newest()

    # --- building

    def _build_sections(self) -> None:
        view = self.session.view
        self.session_section = SessionSection()
        self.scan_section = ScanSection(self.viewer, view)
        self.link_section = LinkSection(self.do)
        self.worklist_section = WorklistSection(self.do)
        self.model_section = ModelSection()
        self.structure_section = StructureSection(view)
        self.prompt_section = PromptSection(self.session, self.do)
        self.session_section.save_wanted.connect(self.save_session)
        self.session_section.open_wanted.connect(self.open_session)
        self.volume_section = VolumeSection(self.session.view, self.do)
        self.cases_section = CasesSection(
            self.store.folder, self.store.thumbnail_path, self.session.annotator
        )
        self.training_section = TrainingSection()
        self.federation_section = FederationSection()

    def _connect(self) -> None:
        self.session.failed.connect(self._tell)
        self.scan_section.open_wanted.connect(self.open_scan)
        self.scan_section.layer_chosen.connect(self.choose_layer)
        self.scan_section.plane_chosen.connect(self._show_plane)
        self._scans.chosen.connect(self._scan_chosen)
        self._scans.idle_changed.connect(self.idle_changed)
        self.model_section.model_chosen.connect(self._models.load)
        self.model_section.back_wanted.connect(self._models.go_back)
        self._display.prompts.tool_changed.connect(self.prompt_section.show_tool)
        self._inference.state_changed.connect(self._show_inference)
        self.model_section.newest_wanted.connect(self._models.use_newest)
        self._models.back_changed.connect(self.model_section.show_back)
        self._models.unused_changed.connect(self.model_section.show_unused)
        self._models.loaded.connect(self._use_model)
        self._models.failed.connect(self._tell)
        self._models.activity.connect(self._show_loading)
        self._training_panel.finished.connect(self._models.follow_site)
        self._site_panel.invitation_imported.connect(self._invitation_imported)
        self._profile_switch.switched.connect(self._federation_switched)
        self.background.idle_changed.connect(self.idle_changed)
        self.viewer.events.theme.connect(self._apply_theme)
        self.viewer.window._qt_window.installEventFilter(self)

    def _lay_out(self) -> None:
        self.setObjectName("napari-fedsam")
        self._scroll = SectionStack(
            self.session_section.offer,
            {
                "Scan": self.scan_section,
                "Linked scans": self.link_section,
                "Worklist": self.worklist_section,
                "Model": self.model_section,
                "Structure": self.structure_section,
                "Prompts": self.prompt_section,
                "Volume": self.volume_section,
                "Cases": self.cases_section,
                "Federation": self.federation_section,
                "Training": self.training_section,
                "Session": self.session_section,
            },
            folded=("Linked scans",),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        self.setMinimumWidth(320)
        self._apply_theme()

    # --- what tests, the demo and keys use

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits in the background."""
        return (
            self.background.idle and self._inference.idle and self._models.idle and self._scans.idle
        )

    @property
    def site(self) -> Site:
        """The site's part in a federation."""
        return self._site_panel.site

    @property
    def federation_toggle(self) -> Any:
        """The switch that joins and leaves."""
        return self.federation_section.toggle

    @property
    def worklist(self) -> Worklist | None:
        """The open worklist."""
        return self._worklist_panel.worklist

    @property
    def segmentation_layer(self) -> Any:
        """The Labels layer that holds the accepted masks; None without a scan."""
        return self._display.masks.segmentation

    @property
    def preview_layer(self) -> Any:
        """The Labels layer that shows the preview; None before a scan was chosen."""
        return self._display.masks.preview

    @property
    def points_layer(self) -> Any:
        """The Points layer that holds clicks; None without a scan."""
        return self._display.prompts.points

    @property
    def shapes_layer(self) -> Any:
        """The Shapes layer that holds boxes, lassos and scribbles; None without a scan."""
        return self._display.prompts.shapes

    @property
    def edge_labels(self) -> dict[str, QLabel]:
        """The labels with the patient's sides, by edge of the canvas."""
        return self._display.letters.labels

    def scroll_to(self, section: QWidget) -> None:
        """Bring a section into view."""
        self._scroll.ensureWidgetVisible(section)

    def do(self, name: str, *more: bool) -> None:
        """Run an action of `keys.ACTIONS`; its errors are shown as notifications."""
        method, argument = ACTION_CALLS[name]
        try:
            getattr(self, method)(*argument, *more)
        except FedSamError as error:
            self._tell(error)

    def open_scan(self, path: Path | str) -> ScanOpening:
        """Open a file or DICOM folder in a worker and annotate it."""
        return self._scans.open(Path(path))

    def choose_layer(self, layer: Image | None) -> None:
        """Annotate the scan of an image layer."""
        self._scans.choose(layer)

    def set_structure(self, structure: Structure | int | str) -> None:
        """Segment a structure: one on offer by value or name, or a new one."""
        self._structure_panel.choose(structure)

    def save_mask(self, path: Path | str) -> None:
        """Save the segmentation with the scan's exact geometry, in a worker."""
        self._structure_panel.save_mask(Path(path))

    def shut_down(self) -> None:
        """Stop all background work, leave the federation and let go of the viewer."""
        if self._is_closed:
            return
        self._is_closed = True
        self._timer.stop()
        self.viewer.window._qt_window.removeEventFilter(self)
        self._canvas.removeEventFilter(self)
        self.viewer.events.theme.disconnect(self._apply_theme)
        unbind_keys(self.viewer)
        self._links.close()
        self._scans.close()
        self._worklist_panel.close()
        self._session_panel.close()
        self._volume_panel.close()
        self._inference.close()
        self._ahead.close()
        self._cursor_preview.close()
        self._answer_ahead.close()
        self._window_drag.stop()
        self._display.close()
        self.prompt_section.close_section()
        self.volume_section.close_section()
        self.worklist_section.close_section()
        self.scan_section.close_section()
        self.link_section.close_section()
        self._training_panel.close()
        self._site_panel.close()
        self.background.close()

    # --- reactions

    def _tell(self, error: Exception) -> None:
        show_error(str(error))

    def _refresh(self) -> None:
        self._site_panel.refresh()
        self._profile_switch.follow()
        self._models.follow_site()

    def _use_model(self, model: ModelInUse, is_update: bool) -> None:
        self.session.use_model(model)
        self.model_section.show_model(model)
        self.model_section.show_choice(self._models.choice)
        if is_update:
            show_info(
                f"Model updated to {model.label}"
                if model.is_personalised
                else "Back to the base model"
            )

    def _model_source(self) -> ModelSource:
        return self._models.source

    def _load_global(self, model: ModelInUse) -> ModelInUse | None:
        if self._models.choice != SITE_MODEL:
            return None
        return self._models.source.load_global(model)

    def _show_inference(self, state: str) -> None:
        # Predictions are too quick to be worth a flicker.
        self.model_section.set_activity("encoding the slice" if state == "encoding" else "")

    def _show_loading(self, what: str, fraction: float) -> None:
        self.model_section.set_activity(what, fraction if fraction >= 0 else None)

    def _invitation_imported(self) -> None:
        self._structure_panel.offer_recipe()
        self._models.load(self._models.choice)

    def _federation_switched(self) -> None:
        profile = self.site.files.profile
        self._models.use_source(ModelSource(self.site_folder, profile))
        self._structure_panel.offer_recipe()

    def _scan_chosen(self) -> None:
        scan = self.session.scan
        if scan is not None:
            # Hashing every voxel takes a while on a large scan; accepting needs it.
            self.background.run("scan", lambda: scan.fingerprint, lambda _: None, self._tell)
            self._session_panel.scan_opened(scan)

    def _show_plane(self, axis: int) -> None:
        self._display.binding.show_plane(axis, self.session.crosshair.index_along(axis))

    def _apply_theme(self) -> None:
        theme = get_theme(self.viewer.theme)
        self.prompt_section.set_accent(theme.current.as_hex("long"))
        self.federation_section.plot.set_colors(
            theme.text.as_hex("long"), theme.background.as_hex("long")
        )

    def event(self, event: QEvent) -> bool:
        """Shut down once the dock widget was closed: napari then takes its content out."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.shut_down()
            # Its parts refer to each other through Qt, where Python's collector cannot see.
            self.deleteLater()
        return bool(super().event(event))

    def eventFilter(self, watched: Any, event: QEvent) -> bool:  # noqa: N802
        """Shut down with the main window (one closed by hand may still be kept open); list keys."""
        if event.type() == QEvent.Type.KeyPress and event.text() == "?":
            self.do("show_keys")
            return True
        if event.type() == QEvent.Type.Close and watched is not self._canvas:
            if event.spontaneous():
                QTimer.singleShot(0, lambda: self._shut_down_unless_visible(watched))
            else:
                self.shut_down()
        return False

    def _shut_down_unless_visible(self, window: QWidget) -> None:
        if not window.isVisible():
            self.shut_down()
