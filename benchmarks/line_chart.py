"""Line charts: a few lines in one picture, as SVG that any browser shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Line", "line_chart"]

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 360, 70, 44, 46
COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""Colour-blind people can tell these apart, too (Okabe and Ito)."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, across: str, lines: Sequence[Line], *, logarithmic_y: bool) -> str:
    """``across`` labels the x axis, which is logarithmic; each line is labelled with its name.
    Values are above 0."""
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    marks = _powers(min(ys), max(ys)) if logarithmic_y else _steps(max(ys))

    def px(x: float) -> float:
        return LEFT + (WIDTH - LEFT - 30) * _share(math.log(x), math.log(xs[0]), math.log(xs[-1]))

    def py(y: float) -> float:
        scale = math.log if logarithmic_y else float
        return (
            HEIGHT
            - BOTTOM
            - (HEIGHT - TOP - BOTTOM) * _share(scale(y), scale(marks[0]), scale(marks[-1]))
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="22" font-size="15">{title}</text>',
        _text((LEFT + WIDTH - 30) / 2, HEIGHT - 8, across),
    ]
    for mark in marks:
        parts.append(f'<path d="M{LEFT},{py(mark):.1f}H{WIDTH - 30}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, py(mark) + 4, f"{mark:,g}", "end"))
    parts += [_text(px(x), HEIGHT - BOTTOM + 18, f"{x:,.0f}") for x in xs]
    for line, colour in zip(lines, COLOURS, strict=False):
        places = [(px(x), py(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        parts.append(_text(x - 8, y - 10, line.name, "end", colour))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / ((high - low) or 1.0)


def _powers(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _steps(high: float) -> list[float]:
    """0 and a few round numbers, the last one above all values."""
    step = 10.0 ** math.floor(math.log10(high))
    while high / step < 4:
        step /= 2
    return [step * number for number in range(math.floor(high / step) + 2)]
