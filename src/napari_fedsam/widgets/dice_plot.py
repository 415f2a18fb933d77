"""A small plot of Dice per round in napari's colours."""

from collections.abc import Sequence

from qtpy.QtWidgets import QVBoxLayout, QWidget


class DicePlot(QWidget):
    """Mean Dice of each round's model on this site's held-out cases.

    Matplotlib is imported with the first value, so that a site without a federation never pays
    for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._history: tuple[tuple[int, float], ...] = ()
        self._colors = ("#f0f1f2", "#262930")
        self.setFixedHeight(140)
        self.hide()

    def set_colors(self, text: str, background: str) -> None:
        """Use a theme's colours (`#rrggbb`)."""
        self._colors = (text, background)
        self._draw()

    def show_history(self, history: Sequence[tuple[int, float]]) -> None:
        """Plot (round, Dice) pairs; hidden while there are none."""
        if tuple(history) != self._history:
            self._history = tuple(history)
            self._draw()
        self.setVisible(bool(self._history))

    def _draw(self) -> None:
        if not self._history:
            return
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        if self._layout.count() == 0:
            self._canvas = FigureCanvasQTAgg(Figure(layout="constrained"))
            self._layout.addWidget(self._canvas)
        text, background = self._colors
        figure = self._canvas.figure
        figure.clear()
        figure.set_facecolor(background)
        axes = figure.add_subplot()
        axes.set_facecolor(background)
        rounds, dice = zip(*self._history, strict=True)
        axes.plot(rounds, dice, marker="o", markersize=4, color="#56b4e9")
        axes.set_ylim(0, 1)
        axes.set_xlabel("round (on held-out cases)", color=text, fontsize=8)
        axes.set_ylabel("Dice", color=text, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(colors=text, labelsize=8)
        for edge, spine in axes.spines.items():
            spine.set_visible(edge in ("left", "bottom"))
            spine.set_color(text)
        self._canvas.draw_idle()
