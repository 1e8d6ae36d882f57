"""Stacked bars, as SVG: one bar for each whole, which shows its parts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["stacked_chart"]

WIDTH, LEFT, RIGHT, LINE, TOP = 760, 130, 70, 44, 84
COLOURS = ("#bbbbbb", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2")
"""Colour-blind people can tell these apart, too (Okabe and Ito)."""
KEY_WIDTH = 104


def stacked_chart(title: str, wholes: Mapping[str, Mapping[str, float]]) -> str:
    """``wholes`` has the parts of each bar by name, all in the same order; none is negative."""
    names = list(next(iter(wholes.values())))
    scale = (WIDTH - LEFT - RIGHT) / max(sum(parts.values()) for parts in wholes.values())
    height = TOP + LINE * len(wholes) + 8
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        key_x = 16 + KEY_WIDTH * number
        drawn += [
            f'<rect x="{key_x}" y="44" width="12" height="12" fill="{colour}"/>',
            f'<text x="{key_x + 17}" y="55" fill="#333">{escape(name)}</text>',
        ]
    for number, (whole, parts) in enumerate(wholes.items()):
        x, y = float(LEFT), TOP + LINE * number
        label = escape(whole)
        drawn.append(
            f'<text x="{LEFT - 8}" y="{y + 18}" text-anchor="end" fill="#333">{label}</text>'
        )
        for value, colour in zip(parts.values(), COLOURS, strict=False):
            width = value * scale
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="28" fill="{colour}"/>'
            )
            if width > 26:
                drawn.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 18}" text-anchor="middle">'
                    f"{value:.1f}</text>"
                )
            x += width
        total = sum(parts.values())
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 18}" fill="#333">{total:.1f}</text>')
    return "\n".join([*drawn, "</svg>", ""])
