"""Plots as SVG and PNG, drawn by matplotlib, which the extra ``lvsctl[plots]`` installs.

matplotlib draws both formats by itself, without a browser or a network (plotly and Altair need
one of the two for PNG, pygal draws no error bars). It is an extra because with NumPy it is larger
than everything else that lvsctl needs together.
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lvsctl.errors import HostError
from lvsctl.model.scale import Scale, ScaleCurve
from lvsctl.model.service import ForwardingMethod

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Theme(NamedTuple):
    """Colours of a plot: text and axes, grid, background (empty: transparent), each curve."""

    ink: str
    grid: str
    background: str
    curves: Mapping[ForwardingMethod, str]


LIGHT = Theme(
    "#1b2430",
    "#d9dee5",
    "",
    {
        ForwardingMethod.NAT: "#b3261e",
        ForwardingMethod.TUN: "#8a5a00",
        ForwardingMethod.DR: "#2563c9",
    },
)
DARK = Theme(
    "#e6ebf1",
    "#2c3744",
    "",
    {
        ForwardingMethod.NAT: "#ff8d84",
        ForwardingMethod.TUN: "#f4c066",
        ForwardingMethod.DR: "#7fb0ff",
    },
)

_MARKS = {ForwardingMethod.NAT: "s", ForwardingMethod.TUN: "^", ForwardingMethod.DR: "o"}
"""Signs beside the colours, for readers who cannot distinguish these."""

_WIDE, _NARROW = (10.6, 4.2), (4.4, 11.0)
"""Inches: three panels side by side, or one below the other on a phone."""


def check() -> None:
    """Raise HostError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise HostError(
            "plots need matplotlib, which is not installed", hint="pip install 'lvsctl[plots]'"
        )


def scale_svg(result: Scale, theme: Theme, *, narrow: bool = False) -> str:
    """Return the curves as SVG with text as text. Raises HostError as ``check``."""
    with _figure(theme, narrow=narrow) as figure:
        _draw(figure, result, theme, narrow=narrow)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def scale_png(result: Scale) -> bytes:
    """Return the curves as a picture on white. Raises HostError as ``check``."""
    theme = LIGHT._replace(background="#ffffff")
    with _figure(theme, narrow=False) as figure:
        _draw(figure, result, theme, narrow=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=144)
    return stream.getvalue()


@contextmanager
def _figure(theme: Theme, *, narrow: bool) -> Iterator[Figure]:
    """An empty figure in the colours of a theme; its settings last until the end of the block."""
    check()
    # It warns where it cannot keep its list of fonts, as in the throwaway kernel.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HostError(
            f"matplotlib is installed and cannot be imported: {error}",
            hint="pip install --force-reinstall 'lvsctl[plots]'",
        ) from error

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "lvsctl",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.ink,
        "axes.titlesize": 10.5,
        "axes.titlecolor": theme.ink,
        "grid.color": theme.grid,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "legend.frameon": False,
        "figure.facecolor": theme.background or "none",
        "axes.facecolor": "none",
    }
    with mpl.rc_context(settings):
        yield Figure(figsize=_NARROW if narrow else _WIDE, layout="constrained")


def _draw(figure: Figure, result: Scale, theme: Theme, *, narrow: bool) -> None:
    rows, columns = (3, 1) if narrow else (1, 3)
    speed, latency, load = figure.subplots(rows, columns).flat
    curves = [curve for curve in result.curves if curve.points]
    for curve in curves:
        _curve(speed, latency, load, curve, theme)
    counts = sorted({point.servers for curve in curves for point in curve.points})
    titles = ("Mbit/s that the clients receive", "ms until half of the replies were complete",
              "% of the director's fullest link in use")  # fmt: skip
    for axes, title in zip((speed, latency, load), titles, strict=True):
        axes.set_title(title, loc="left")
        axes.set_xscale("log")
        axes.set_xticks(counts, map(str, counts))
        axes.minorticks_off()
        axes.set_xlabel("real servers in the service")
        axes.grid(visible=True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    speed.set_yscale("log")
    speed.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    speed.yaxis.set_minor_formatter(lambda *_: "")
    latency.set_ylim(bottom=0)
    load.set_ylim(0, 105)
    lines, names = speed.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=2 if narrow else 6)


def _curve(speed: Axes, latency: Axes, load: Axes, curve: ScaleCurve, theme: Theme) -> None:
    points, method = curve.points, curve.method
    servers = [point.servers for point in points]
    look: dict[str, Any] = {
        "color": theme.curves[method],
        "marker": _MARKS[method],
        "markersize": 5,
    }
    whole = [point.whole / 1e6 for point in points]
    spread = [
        [(point.whole - point.least) / 1e6 for point in points],
        [(point.most - point.whole) / 1e6 for point in points],
    ]
    expected = [(point.servers, point.expected / 1e6) for point in points if point.expected]
    if expected:
        speed.plot(*zip(*expected, strict=True), color=theme.curves[method], linestyle=":",
                   linewidth=2.4, alpha=0.7, label=f"{method}, expected")  # fmt: skip
    speed.errorbar(servers, whole, spread, capsize=2, linewidth=1.4, label=f"{method}, measured",
                   **look)  # fmt: skip
    timed = [(point.servers, point.latency.p50) for point in points if point.latency]
    if timed:
        latency.plot(*zip(*timed, strict=True), **look)
    load.plot(servers, [point.director.use * 100 for point in points], **look)
