"""Horizontal bars, as SVG: one line for each name, the longest first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bar_chart"]

WIDTH, LEFT, LINE, TOP = 640, 190, 22, 44
OURS, THEIRS = "#d55e00", "#0072b2"


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, ours: str, mark: float) -> str:
    """``mark`` is the reference, where a line is drawn across. No value is negative."""
    most = max([mark, *(value for _, value in bars)])
    scale = (WIDTH - LEFT - 60) / most
    height = TOP + LINE * len(bars) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="22" font-size="15">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(sorted(bars, key=lambda bar: -bar[1])):
        y = TOP + LINE * number
        label = escape(name)
        colour = OURS if name.startswith(ours) else THEIRS
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end" fill="#333">{label}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="15" fill="{colour}"/>',
            f'<text x="{LEFT + value * scale + 6:.1f}" y="{y + 12}" fill="#333">{value:.2f}</text>',
        ]
    x = LEFT + mark * scale
    parts.append(f'<path d="M{x:.1f},{TOP - 6}V{height - 12}" stroke="#333" stroke-dasharray="3"/>')
    return "\n".join([*parts, "</svg>", ""])
