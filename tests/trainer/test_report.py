"""The report is one file that needs no other, and shows what the run left behind."""

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from trainer.sinks.attempt_time import PARTS, TimeEntry
from trainer.sinks.page import Story, curve, curves, page, read_records

ATTEMPT = TimeEntry(
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


def points_of(figure: str) -> list[tuple[float, float]]:
    [line] = re.findall(r'points="([^"]*)"', figure)
    return [tuple(map(float, point.split(","))) for point in line.split()]


def test_a_curve_fills_its_frame_and_its_labels_say_between_what() -> None:
    figure = curve("loss <x>", [(10.0, 4.0), (20.0, 3.0), (30.0, 1.0), (50.0, 2.0)])
    assert points_of(figure) == [(70.0, 30.0), (145.0, 70.0), (220.0, 150.0), (370.0, 110.0), (370.0, 110.0)]
    labels = re.findall(r'<text x="(\d+)" y="(\d+)">([^<]*)</text>', figure)
    assert labels == [("4", "30", "4"), ("4", "150", "1"), ("70", "170", "10"), ("370", "170", "50")]
    assert "loss &lt;x&gt;" in figure


def test_a_curve_of_one_height_or_one_step_is_a_line_and_no_error() -> None:
    assert points_of(curve("rate", [(1.0, 5.0), (3.0, 5.0)]))[0] == (70.0, 150.0)
    assert len({x for x, _ in points_of(curve("rate", [(1.0, 5.0), (1.0, 6.0)]))}) == 1


def test_a_long_curve_is_thinned_to_a_screen_and_keeps_its_end() -> None:
    points = points_of(curve("loss", [(float(step), float(step)) for step in range(4001)]))
    assert 300 < len(points) < 500
    assert points[0][0] == 70.0
    assert points[-1][0] == 370.0


def test_every_number_is_a_curve_and_what_was_recorded_once_a_dot() -> None:
    records = [
        {"kind": "train", "step": 1, "loss": 2.0, "words": "x", "once": 1},
        {"kind": "save", "step": 2, "loss": 3},
        {"kind": "train", "step": 3, "loss": 1.0},
        {"kind": "save", "step": 4, "loss": 5},
    ]
    found = curves(records)
    assert found.pop("train: once") == [(1.0, 1.0)]
    assert found == {"train: loss": [(1.0, 2.0), (3.0, 1.0)], "save: loss": [(2.0, 3.0), (4.0, 5.0)]}
    for points in ([(1.0, 1.0)], [(1.0, 2.0), (3.0, 1.0)]):
        figure = curve("once", points)
        assert re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', figure) == [tuple(map(str, points_of(figure)[-1]))]


def test_what_a_run_is_worth_comes_first_and_numbers_that_never_change_are_a_line() -> None:
    text = page(
        Story(
            "run",
            "seed: 0",
            [
                {"kind": "save", "step": 1, "seconds": 2.0},
                {"kind": "train", "step": 1, "loss": 2.0, "bad_samples": 0},
                {"kind": "train", "step": 2, "loss": 1.0, "bad_samples": 0},
                {"kind": "save", "step": 2, "seconds": 3.0},
                {"kind": "evaluation", "step": 1, "label/<accuracy>": 0.25},
                {"kind": "evaluation", "step": 2, "label/<accuracy>": 0.5, "samples": 40},
            ],
            [],
            [],
        )
    )
    assert re.findall("<figcaption>([^<]*)<", text) == [
        "evaluation: label/&lt;accuracy&gt;",
        "train: loss",
        "save: seconds",
    ]
    assert "<p>The same throughout: evaluation: samples = 40; train: bad_samples = 0</p>" in text


def test_skipped_steps_are_told_of_the_newest_line() -> None:
    lines = [{"kind": "train", "step": step, "total_skipped_steps": step - 1} for step in (2, 4)]
    assert "<p>Step 4; skipped steps: 3. " in page(replace(STORY, records=[*lines, {"kind": "event", "step": 9}]))
    for others in ({}, {"total_skipped_steps": "x"}, {"total_skipped_steps": True}):
        assert "skipped steps: 0. " in page(replace(STORY, records=[{"kind": "train", "step": 1, **others}]))
    assert "skipped steps" not in page(replace(STORY, records=[]))


def test_attempts_and_events_have_a_line_each_and_parts_without_content_no_title() -> None:
    text = page(replace(STORY, records=[*STORY.records, {"kind": "save", "step": 7, "error": "disk is full"}]))
    assert "<p>step 7: disk is full</p>" in text
    assert "<p>step 2: not finite &amp; skipped</p>" in text
    assert text.count("<tr>") == 3
    assert "<td>0 to 10</td><td>0</td>" in text
    assert "<td>6.0 s</td>" in text
    heads = re.findall("<th>([^<]*)</th>", text)
    assert heads == ["attempt", "started", "hosts", "ranks", "steps", "lost", *PARTS, "ended"]
    cells = [re.findall("<td>([^<]*)</td>", row) for row in re.findall("<tr>(.*?)</tr>", text)[1:]]
    times = ["6.0 s" if part == "compute" else "0.0 s" for part in PARTS]
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(0.0))
    assert cells == [
        ["1", started, "node-1", "2", "0 to 10", "0", *times, "killed"],
        ["2", started, "node-1", "2", "10 to 20", "0", *times, "finished"],
    ]
    assert "<h2>Pictures</h2>" not in text
    empty = page(Story("run", "seed: 0", [], [], []))
    assert re.findall("<h2>([A-Z][a-z]+)</h2>", empty) == ["Configuration"]
    assert ">?<" in page(replace(STORY, attempts=[replace(ATTEMPT, started_at=1e300)]))


def test_texts_and_pictures_are_in_the_page_under_their_names(tmp_path: Path) -> None:
    text, picture = tmp_path / "hidden_words.txt", tmp_path / "samples.png"
    text.write_bytes("a <b>\x1b[2J café\n".encode() + b"damaged \xff\n")
    picture.write_bytes(b"picture")
    whole = page(replace(STORY, texts=[text], pictures=[picture], config="a: <b>"))
    assert "<h3>hidden_words</h3><pre>a &lt;b&gt;" in whole
    assert "\x1b" not in whole
    assert "café" in whole
    assert "damaged \ufffd" in whole
    assert '<figcaption>samples</figcaption><img src="data:image/png;base64,cGljdHVyZQ==">' in whole
    assert re.findall("<h2>([A-Z][a-z]+)</h2>", whole) == [
        "Steps",
        "Curves",
        "Attempts",
        "Events",
        "Pictures",
        "Texts",
        "Configuration",
    ]
    assert "<pre>a: &lt;b&gt;</pre>" in whole
