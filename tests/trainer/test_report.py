"""The report is one file that needs no other, and shows what the run left behind."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from trainer.ledger import PARTS, Attempt
from trainer.report import Story, curve, curves, page, read_records

ATTEMPT = Attempt(
    1,
    ("node-1",),
    2,
    0.0,
    first_step=0,
    last_step=10,
    seen_at=10.0,
    seconds={**dict.fromkeys(PARTS, 0.0), "compute": 6.0},
)
STORY = Story(
    name="a <run>",
    config="seed: 0",
    records=[
        {"kind": "train", "step": 1, "loss": 2.0},
        {"kind": "train", "step": 2, "loss": float("nan")},
        {"kind": "train", "step": 3, "loss": 1.0},
        {"kind": "event", "step": 2, "message": "not finite & skipped"},
    ],
    attempts=[ATTEMPT, replace(ATTEMPT, number=2, first_step=10, last_step=20, ended="finished")],
    pictures=[],
)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_everything_and_links_to_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "samples.png"
    picture.write_bytes(b"picture")
    text = page(replace(STORY, pictures=[picture]))
    links = Links()
    links.feed(text)
    assert [link.split(";")[0] for link in links.found] == ["data:image/png"]
    for part in ("a &lt;run&gt;", "seed: 0", "train: loss", "not finite &amp; skipped", "60.0%", "node-1", "killed"):
        assert part in text


def test_a_curve_runs_through_the_finite_points_only() -> None:
    points = curves(STORY.records)
    assert points == {"train: loss": [(1.0, 2.0), (3.0, 1.0)]}
    [line] = re.findall(r'points="([^"]*)"', curve("loss", points["train: loss"]))
    (x0, y0), *_, (x1, y1) = (tuple(map(float, point.split(","))) for point in line.split())
    assert x0 < x1
    assert y0 < y1  # downwards, as the loss falls


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "tra')
    assert read_records(path) == [{"kind": "train", "step": 1}]
    assert read_records(tmp_path / "none") == []
