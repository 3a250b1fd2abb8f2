"""Draws PiT with its token pooling: `python docs/draw_pit.py` writes docs/pit.svg.

The numbers are PiT-S' at 224 x 224. A map is drawn to scale: its side is the number of positions,
its depth the number of channels.
"""

import itertools
import pathlib

SVG = pathlib.Path(__file__).parent / "pit.svg"
WIDTH, HEIGHT = 1120, 408
CELL = 5.0  # of a position, in units of the drawing
DEPTH = 0.13  # of a channel
BASE = 300  # where the maps stand
INK, PALE, SPATIAL, CLASS, POOLING = "#1f2937", "#6b7280", "#2563eb", "#ea580c", "#059669"
# (left, side of the map, channels, blocks, heads)
STAGES = ((250, 27, 144, 2, 3), (570, 14, 288, 6, 6), (852, 7, 576, 4, 12))
TOKEN = 12  # the side of a class token
X = "\N{MULTIPLICATION SIGN}"


def polygon(points, fill, opacity=1.0):
    pairs = " ".join(f"{x:g},{y:g}" for x, y in points)
    shape = f'<polygon points="{pairs}" fill="{fill}" fill-opacity="{opacity:g}"'
    return f'{shape} stroke="{fill}" stroke-width="1" stroke-linejoin="round"/>'


def text(x, y, words, size=13, color=INK, weight="normal", anchor="middle"):
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{words}</text>'
    )


def line(x1, y1, x2, y2, color, width=1.0, end=""):
    tip = f' marker-end="url(#{end})"' if end else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}" '
        f'stroke-width="{width:g}"{tip}/>'
    )


def box(x, y, width, height, color, lines):
    """A rounded box with lines of text, its centre at x, y."""
    left, top = x - width / 2, y - height / 2
    frame = (
        f'<rect x="{left:g}" y="{top:g}" width="{width}" height="{height}" rx="8" fill="{color}" '
        f'fill-opacity="0.1" stroke="{color}" stroke-width="1.5"/>'
    )
    first = y + 4.5 - 8 * (len(lines) - 1)
    return [frame, *(text(x, first + 16 * i, words, 12) for i, words in enumerate(lines))]


def block(left, top, side, depth, color, cells=1):
    """A square of cells with its depth, drawn obliquely to the upper right."""
    right, bottom, away = left + side, top + side, depth * 0.7
    roof = [(left, top), (left + away, top - away), (right + away, top - away), (right, top)]
    wall = [
        (right, top), (right + away, top - away), (right + away, bottom - away), (right, bottom),
    ]  # fmt: skip
    front = [(left, top), (right, top), (right, bottom), (left, bottom)]
    parts = [polygon(roof, color, 0.35), polygon(wall, color, 0.55), polygon(front, "#ffffff")]
    parts.append(polygon(front, color, 0.16))
    for i in range(1, cells):
        at = i * side / cells
        parts.append(line(left + at, top, left + at, bottom, color, 0.6))
        parts.append(line(left, top + at, right, top + at, color, 0.6))
    return parts


def stage(number, left, grid, channels, blocks, heads):
    """A stage's map, its class token above it, and their numbers below."""
    side, depth = grid * CELL, channels * DEPTH
    middle = left + side / 2
    return [
        *block(left, BASE - side, side, depth, SPATIAL, grid),
        *block(left, TOKENS_AT, TOKEN, depth, CLASS),
        text(middle, BASE + 24, f"Stage {number}", 15, weight="bold"),
        text(middle, BASE + 44, f"{grid} {X} {grid} tokens"),
        text(middle, BASE + 62, f"{channels} channels"),
        text(middle, BASE + 80, f"{blocks} blocks, {heads} heads", color=PALE),
    ]


TOKENS_AT = 104  # the top of the class tokens
FLOW = BASE - 3.5 * CELL  # the height of the arrows between maps


def pooling(before, after):
    """The token pooling between two stages: one way for the map, one for the class token."""
    (left, grid, channels, *_), (right, *_) = before, after
    start = left + grid * CELL + channels * DEPTH * 0.7 + 8
    middle, token = (start + right) / 2 - 4, TOKENS_AT + TOKEN / 2
    convolution = [f"depth-wise 3 {X} 3", "stride 2", f"channels {X} 2"]
    top, bottom = TOKENS_AT - 20, FLOW + 40
    return [
        f'<rect x="{middle - 66:g}" y="{top:g}" width="132" height="{bottom - top:g}" rx="12" '
        f'fill="{POOLING}" fill-opacity="0.07"/>',
        text(middle, (token + FLOW) / 2 - 14, "Token", 15, POOLING, "bold"),
        text(middle, (token + FLOW) / 2 + 4, "pooling", 15, POOLING, "bold"),
        line(start - 4, FLOW, middle - 62, FLOW, SPATIAL, 2),
        *box(middle, FLOW, 120, 58, POOLING, convolution),
        line(middle + 60, FLOW, right - 9, FLOW, SPATIAL, 2, "spatial"),
        line(left + TOKEN + channels * DEPTH * 0.7 + 6, token, middle - 34, token, CLASS, 2),
        *box(middle, token, 68, 28, POOLING, ["Dense"]),
        line(middle + 34, token, right - 9, token, CLASS, 2, "class"),
    ]


def arrow_head(name, color):
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="5" markerHeight="5" '
        f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{color}"/></marker>'
    )


def ends():
    """What comes before the first stage and after the last."""
    first, last = STAGES[0][0], STAGES[-1][0] + TOKEN + STAGES[-1][2] * DEPTH * 0.7
    token = TOKENS_AT + TOKEN / 2
    return [
        *block(28, BASE - 112, 112, 3, PALE, 1),
        text(84, BASE + 24, "Image", 15, weight="bold"),
        text(84, BASE + 44, f"224 {X} 224"),
        text(84, BASE + 62, "RGB"),
        line(146, FLOW, first - 9, FLOW, SPATIAL, 2, "spatial"),
        text(192, FLOW - 41, "patches", 12),
        text(192, FLOW - 25, f"16 {X} 16", 12),
        text(192, FLOW - 9, "stride 8", 12),
        text(first - 12, token + 4.5, "class token", 13, CLASS, "bold", "end"),
        line(last + 6, token, last + 30, token, CLASS, 2, "class"),
        *box(last + 96, token, 124, 44, CLASS, ["LayerNorm, Dense", "1000 logits"]),
    ]


def drawing():
    """The text of the SVG."""
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>',
        f"<defs>{arrow_head('spatial', SPATIAL)}{arrow_head('class', CLASS)}</defs>",
        text(WIDTH / 2, 38, "PiT: fewer positions and more channels from stage to stage", 18,
             weight="bold"),
        *ends(),
    ]  # fmt: skip
    for number, values in enumerate(STAGES, 1):
        parts += stage(number, *values)
    for before, after in itertools.pairwise(STAGES):
        parts += pooling(before, after)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    font = 'font-family="Helvetica, Arial, sans-serif"'
    title = "<title>PiT-S: three stages of 27 x 27, 14 x 14 and 7 x 7 tokens, and the token "
    title += "poolings between them</title>"
    return "\n".join([f"{head} {font}>", title, *parts, "</svg>", ""])


if __name__ == "__main__":
    SVG.write_text(drawing(), encoding="utf-8")
