"""The report of a run as one self-contained HTML page: curves, attempts, goodput, configuration, pictures.

A pure writer: everything comes in as arguments, one string goes out. Curves are SVG, pictures are embedded.
"""

import base64
import html
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.files import history
from data_shards.files.display import printable, printable_lines
from trainer.sinks.attempt_time import PARTS, TimeEntry, goodput, lost_steps
from trainer.sinks.meter import Record

_WIDTH, _HEIGHT = 440, 180
_BESIDE, _ABOVE = 70, 30
_MOST_POINTS = 400
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right }
figure { display: inline-block; margin: .5em } figcaption { font-weight: 600 }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto }
img { max-width: 100% }
svg { background: #fafafa } text { font-size: 11px; fill: #555 }
polyline { fill: none; stroke: #1667b7; stroke-width: 1.5 } circle { fill: #1667b7 }
"""


@dataclass(frozen=True)
class Story:
    """The records of a run."""

    name: str
    """Title of the page."""
    config: str
    """The resolved configuration, as YAML."""
    records: Sequence[Record]
    """Lines of metrics.jsonl."""
    attempts: Sequence[TimeEntry]
    """How the time of each attempt was spent."""
    pictures: Sequence[Path]
    """PNG files: samples, attention maps."""
    texts: Sequence[Path] = ()
    """Text files: hidden words, and how they were filled in."""


def read_records(path: Path) -> list[Record]:
    """Return the whole lines of a metrics.jsonl."""
    return history.lines(path)


def page(story: Story) -> str:
    """Return the page."""
    sections = [
        ("Steps", _steps(story.records)),
        ("Curves", _curves(story.records)),
        ("Attempts", _attempts(story.attempts)),
        ("Events", _events(story.records)),
        ("Pictures", "".join(_picture(path) for path in story.pictures)),
        ("Texts", "".join(_text(path) for path in story.texts)),
        ("Configuration", f"<pre>{html.escape(printable_lines(story.config))}</pre>"),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections if content)
    name = _escaped(story.name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<h1>{name}</h1>{body}</html>\n"
    )


def num_skipped(record: Mapping[str, Any]) -> int:
    """Return how many steps of a run had been skipped when a line of its training was written."""
    number = record.get("total_skipped_steps", 0)
    return int(number) if history.is_number(number) else 0


def newest_training_line(records: Sequence[Record]) -> Record:
    """Return the last line of training; empty where there is none."""
    return next((record for record in reversed(records) if record["kind"] == "train"), {})


def _steps(records: Sequence[Record]) -> str:
    """Return how far the run is, and how many of its steps changed nothing."""
    newest = newest_training_line(records)
    if not newest:
        return ""
    why = "The loss or gradient of a skipped step was not finite, and no weight changed."
    return f"<p>Step {newest['step']}; skipped steps: {num_skipped(newest)}. {why}</p>"


def _curves(records: Sequence[Record]) -> str:
    """Return a figure for each number that changed, how good the run is first, and a list of the others."""
    kinds = ("evaluation", "train")
    found = sorted(curves(records).items(), key=lambda item: [not item[0].startswith(f"{kind}: ") for kind in kinds])
    figures = [curve(name, points) for name, points in found if _changes(points)]
    rest = [f"{name} = {points[0][1]:.4g}" for name, points in found if not _changes(points)]
    listed = f"<p>The same throughout: {_escaped('; '.join(rest))}</p>" if rest else ""
    return "".join(figures) + listed


def _changes(points: Sequence[tuple[float, float]]) -> bool:
    return len({value for _, value in points}) > 1


def curves(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """Return the points (step, value) of every number that the records hold, by kind and name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(f"{record['kind']}: {name}", []).append((float(record["step"]), float(value)))
    return found


def curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """Return a figure with one line through the points, thinned to what a screen shows, and a dot at the last one."""
    # With the last one, whatever is left out: it is what the reader looks for first.
    points = [*points[:: max(len(points) // _MOST_POINTS, 1)], points[-1]]
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    # One step, or one height throughout, is a flat line and no division by zero.
    across, up = (_WIDTH - 2 * _BESIDE) / ((right - left) or 1), (_HEIGHT - 2 * _ABOVE) / ((high - low) or 1)
    places = [(_BESIDE + (step - left) * across, _HEIGHT - _ABOVE - (value - low) * up) for step, value in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    # A line through one point is not visible: a number that was recorded once is its dot.
    dot = '<circle cx="{:.1f}" cy="{:.1f}" r="3"/>'.format(*places[-1])
    labels = (
        (4, _ABOVE, high),
        (4, _HEIGHT - _ABOVE, low),
        (_BESIDE, _HEIGHT - 10, left),
        (_WIDTH - _BESIDE, _HEIGHT - 10, right),
    )
    texts = "".join(f'<text x="{x}" y="{y}">{value:.4g}</text>' for x, y, value in labels)
    return (
        f"<figure><figcaption>{_escaped(name)}</figcaption>"
        f'<svg width="{_WIDTH}" height="{_HEIGHT}"><polyline points="{line}"/>{dot}{texts}</svg></figure>'
    )


def _attempts(attempts: Sequence[TimeEntry]) -> str:
    if not attempts:
        return ""
    heads = ("attempt", "started", "hosts", "ranks", "steps", "lost", *PARTS, "ended")
    rows = "".join(_attempt(attempt, lost) for attempt, lost in zip(attempts, lost_steps(attempts), strict=True))
    useful = f"<p>Goodput, the fraction of the wall time spent on steps that were kept: {goodput(attempts):.1%}</p>"
    return f"{useful}<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>"


def _attempt(attempt: TimeEntry, lost: int) -> str:
    cells = (
        attempt.number,
        _time(attempt.started_at),
        ", ".join(attempt.hosts),
        attempt.world_size,
        f"{attempt.first_step} to {attempt.last_step}",
        lost,
        *(f"{attempt.seconds.get(part, 0.0):.1f} s" for part in PARTS),
        attempt.ended,
    )
    return f"<tr>{''.join(f'<td>{_escaped(str(cell))}</td>' for cell in cells)}</tr>"


def _time(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "?"  # a damaged record; the rest of it is of use


def _events(records: Sequence[Record]) -> str:
    told = [record for record in records if record["kind"] == "event" or record.get("error")]
    lines = [f"step {record['step']}: {record.get('message') or record.get('error')}" for record in told]
    return "".join(f"<p>{_escaped(line)}</p>" for line in lines)


def _picture(path: Path) -> str:
    # Embedded: the page is one file, which can be sent on without the folder of the run.
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><figcaption>{_escaped(path.stem)}</figcaption><img src="data:image/png;base64,{content}"></figure>'


def _text(path: Path) -> str:
    content = path.read_bytes().decode(errors="replace")
    return f"<h3>{_escaped(path.stem)}</h3><pre>{html.escape(printable_lines(content))}</pre>"


def _escaped(words: str) -> str:
    # Names of classes and files are the data's: one may be a tag, or have control characters in it.
    return html.escape(printable(words))
