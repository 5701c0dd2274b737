"""The look of all charts, light and dark, as Vega configs.

A spec names roles (an axis, a quiet text, the third family) and a theme gives each role its colour, so that
the page embeds one spec under either theme. Colours are after Okabe and Ito, darkened or lightened until
shapes have 3:1 and text 4.5:1 against the page.
"""

from collections.abc import Mapping

FONT = "system-ui, sans-serif"

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
"""Seven shapes against eight colours: the pair repeats only after 56 families."""

_LIGHT = {
    "ink": "#1f2328",
    "quiet": "#59636e",
    "line": "#8c959f",
    "grid": "#e6e9ec",
    "ramp": ["#f4f8fc", "#7fb8e6"],
}
_DARK = {
    "ink": "#f0f3f6",
    "quiet": "#a8b3bf",
    "line": "#77818c",
    "grid": "#2d343c",
    "ramp": ["#1a222b", "#1f5f99"],
}
_LIGHT_FAMILIES = (
    "#0072b2", "#d55e00", "#00875f", "#b8528f", "#a97400", "#2f95d0", "#404040", "#6b6b00",
)  # fmt: skip
_DARK_FAMILIES = (
    "#4aa8e8", "#ff8344", "#2bc79a", "#e596c6", "#f0b53d", "#a5d8ff", "#d0d0d0", "#f0e442",
)  # fmt: skip


def theme(dark: bool) -> Mapping[str, object]:
    """Return the Vega config of the dark or the light theme; its background is transparent.

    Colours of families, ramps and texts are ranges and styles that the specs name. It is plain JSON, and
    the only place that holds a colour.
    """
    tones = _DARK if dark else _LIGHT
    ink, quiet = tones["ink"], tones["quiet"]
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None, "continuousWidth": 720},
        "axis": _axis(tones),
        "axisQuantitative": {"tickCount": 6},
        "legend": {
            "orient": "bottom",
            "labelColor": ink,
            "titleColor": quiet,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 160,
        },
        "title": {"color": ink, "subtitleColor": quiet, "anchor": "start", "fontSize": 15},
        "rule": {"color": tones["line"]},
        "range": {
            "category": list(_DARK_FAMILIES if dark else _LIGHT_FAMILIES),
            "symbol": list(SHAPES),
            "heatmap": tones["ramp"],
            "ramp": tones["ramp"],
        },
        "style": _styles(tones),
    }


def _axis(tones: Mapping[str, object]) -> Mapping[str, object]:
    return {
        "labelColor": tones["ink"],
        "titleColor": tones["quiet"],
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": tones["grid"],
        "domainColor": tones["line"],
        "tickColor": tones["line"],
        "labelLimit": 300,
    }


def _styles(tones: Mapping[str, object]) -> Mapping[str, object]:
    """Return the roles of marks that are no family's."""
    return {
        "name": {"color": tones["ink"], "fontSize": 11},
        "quiet": {"color": tones["quiet"], "fontSize": 11},
        "guide": {"color": tones["line"], "strokeWidth": 1},
        "strong": {"color": tones["ink"]},
    }
