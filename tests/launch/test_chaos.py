"""A fault campaign counts what happened and believes nobody: what is lost, left behind or refused wrongly is told."""

import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from leaving import Leaving

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from launch.chaos import campaign as chaos
from launch.chaos import rank, ranks
from launch.chaos.campaign import Campaign, Met, fingerprint
from launch.chaos.damage import spoil
from launch.chaos.rank import Plan
from launch.cli import main
from launch.lifecycle.run_folder import RunFolder
from launch.run import composition, creation
from trainer.checkpoint import store
from trainer.engine.engine import Engine

SHARE_OF_DAMAGED_HISTORY = chaos._SHARE_OF_DAMAGED_HISTORY

# In the place of a training: meets its faults as it is told to and finishes with the same checkpoint each time.
TRAINING = """
import json, os, pathlib, shutil, signal, sys, time

here = pathlib.Path.cwd()
lies = (here / "lies").read_text() if (here / "lies").exists() else ""
plans = json.loads(sys.argv.pop(1)) if sys.argv[1].startswith("[") else []
given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
run = pathlib.Path(sys.argv[sys.argv.index("--run") + 1])
rank = os.environ.get("RANK", "0")
start = [sys.argv[1:], plans, os.environ.get("WORLD_SIZE")]
(here / f"start_{time.monotonic_ns()}_{rank}.json").write_text(json.dumps(start))
shards = pathlib.Path(given["data.shards"])
if any(path.read_bytes() != b"shard" * 20 for path in shards.glob("*.tar")):
    sys.exit(0 if lies == "shard" else 2)
fatal = False
for plan in plans:
    if plan["action"] == "terminate":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1 if lies == "terminate" else 85))
    pathlib.Path(plan["met_path"]).write_text("2")
    fatal = fatal or plan["action"] in ("kill", "raise", "stop")
if any(plan["action"] == "terminate" for plan in plans):
    time.sleep(60)
if fatal:
    sys.exit(0 if lies == "kill" else 1)
if rank == "0":
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 2.0}\\n')
    other = lies == "weights" and run.name != "straight"
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    shutil.copytree(here / ("other" if other else "same"), run / "checkpoints")
sys.exit(0)
"""


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """A campaign whose trainings are stand-ins; the file `lies` says in what they are not as they should be."""
    package = tmp_path / "launch"
    (package / "chaos").mkdir(parents=True)
    for name in ("__main__", "chaos/rank"):
        (package / f"{name}.py").write_text(TRAINING)
    for folder in (package, package / "chaos"):
        (folder / "__init__.py").touch()
    for name, value in (("same", 1.0), ("other", 2.0)):
        save(tmp_path / name, 8, {"weight": torch.full((4,), value)})
    (tmp_path / "shards").mkdir()
    for number in range(2):
        (tmp_path / "shards" / f"{number}.tar").write_bytes(b"shard" * 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("launch.chaos.own_code.installed_folder", lambda: tmp_path)
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGED_HISTORY", 0.3)
    return Campaign(["train", "config.yaml"], tmp_path / "campaign", tmp_path / "shards", steps=24, num_ranks=1, seed=5)


def test_a_campaign_meets_as_many_faults_as_asked_for_and_finds_all_runs_equal(campaign: Campaign) -> None:
    told: list[tuple[int, int]] = []
    report = campaign.run(6, num_resizes=1, progress=lambda done, total: told.append((done, total)))
    assert report["faults"] >= 6
    assert report["survived"] == report["bit_equal"] == report["faults"]
    assert sum(report["kinds"].values()) == report["faults"] == len(report["met"])
    assert (report["ranks"], report["seed"], report["resizes"], report["starved"]) == (1, 5, 1, 0)
    assert report["resized_loss_difference"] == 0.0
    assert report["runs"] >= 1
    assert told[-1] == (report["faults"], 6)
    assert [path.read_bytes() for path in sorted(campaign.own_shards.glob("*.tar"))] == [b"shard" * 20] * 2
    starts = [json.loads(path.read_text()) for path in campaign.folder.parent.glob("start_*.json")]
    assert all(f"data.shards={campaign.own_shards}" in words for words, _, _ in starts)
    assert {"1", "2"} <= {world_size for _, _, world_size in starts}, "no run was finished by two ranks"


@pytest.mark.parametrize(
    ("lie", "is_survived", "is_equal", "words"),
    [
        ("weights", True, False, ""),
        ("kill", False, True, "a rank left as if nothing had happened"),
        ("terminate", False, True, "SIGTERM did not end in good order"),
        ("shard", False, True, "a cut shard was not refused"),
    ],
)
def test_what_is_not_as_it_should_be_is_counted(
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
    is_survived: bool,
    is_equal: bool,
    words: str,
) -> None:
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGE", 0.0)
    (campaign.folder.parent / "lies").write_text(lie)
    only = {"kill": [("step", "kill")], "terminate": [("step", "terminate")]}.get(lie, [("step", "raise")])
    campaign.folder.mkdir()
    shutil.copytree(campaign.shards, campaign.own_shards)
    campaign.to_come = only * 3
    run = campaign.folder / "run"
    if lie == "shard":
        while not campaign.met:
            RunFolder(run).checkpoints_folder.mkdir(parents=True, exist_ok=True)
            campaign._damage(run, 1)
    else:
        campaign._disturb(run, 1, 2, None)
    complaints = " ".join(met.complaint for met in campaign.met)
    assert words in complaints
    campaign.finished.add(1)
    assert all(map(campaign._is_survived, campaign.met)) == is_survived
    if lie == "weights":
        straight = campaign.folder / "straight"
        campaign._start(straight)
        assert (fingerprint(run) == fingerprint(straight)) == is_equal


def test_a_run_that_fails_by_itself_ends_the_campaign_in_words(campaign: Campaign) -> None:
    (campaign.shards / "0.tar").write_bytes(b"bad")
    with pytest.raises(RuntimeError, match=r"the run fails undisturbed, statuses \(2,\)"):
        campaign.run(1)


def plan(place: str = "step", action: str = "kill", **changes: object) -> Plan:
    return Plan(**{"place": place, "count": 1, "action": action, "delay_ms": 0, "met_path": "", **changes})


@pytest.mark.parametrize(
    ("actions", "statuses", "words"),
    [
        (["kill"], (1, 1), ""),
        (["kill"], (1, 0), "left as if nothing had happened"),
        (["kill"], (1, ranks.LEFT_BEHIND), "left behind"),
        (["terminate"], (85, 0), ""),
        (["terminate"], (85, 1), "SIGTERM did not end in good order"),
        (["full_disk"], (0, 0), ""),
        (["full_disk"], (0, 1), "full_disk ended the run"),
        (["second_start"], (0, 0), ""),
        (["full_disk", "second_start"], (1, 1), "full_disk and second_start ended the run"),
        (["full_disk", "kill"], (1, 1), ""),
    ],
)
def test_how_ranks_have_to_leave_depends_on_what_they_met(
    actions: list[str], statuses: tuple[int, ...], words: str
) -> None:
    found = chaos._complaint([plan(action=action) for action in actions], statuses)
    assert (words in found) if words else found == ""


def test_a_second_start_that_was_not_refused_is_told(tmp_path: Path) -> None:
    met = tmp_path / "met"
    for status, is_told in (("2", False), ("0", True), ("1", True)):
        met.write_text(status)
        assert bool(chaos._complaint_of_second(plan(action="second_start", met_path=str(met)))) == is_told
    assert chaos._complaint_of_second(plan(met_path=str(met))) == ""


def test_every_fault_comes_once_before_any_comes_again(campaign: Campaign) -> None:
    campaign.num_ranks = 2
    rounds = [sorted(campaign._next_fault() for _ in range(len(chaos._FATAL))) for _ in range(2)]
    assert rounds[0] == rounds[1] == sorted(chaos._FATAL)
    campaign.num_ranks = 1
    alone = [campaign._next_fault() for _ in range(len(chaos._FATAL) - 1)]
    assert ("step", "stop") not in alone, "nobody could notice that a lone process is stopped"


def test_places_are_met_early_enough_to_happen_and_a_run_is_made_once(campaign: Campaign) -> None:
    places = ("make", "start", "step", "write", "commit", "evaluation", "load")
    counts = {place: {campaign._plan(place, "kill").count for _ in range(60)} for place in places}
    # A start comes to each of these once.
    assert counts["make"] == counts["start"] == counts["evaluation"] == counts["load"] == {1}
    assert counts["commit"] == {1, 2}
    assert counts["step"] == set(range(1, 9))
    assert counts["write"] == {1, 2, 3, 4}
    assert all(len(campaign._plans("make", "kill")) == 1 for _ in range(30))
    also = {each.action for _ in range(60) for each in campaign._plans("step", "kill")[1:]}
    assert also == {"full_disk", "second_start"}
    assert {each.action for _ in range(60) for each in campaign._plans("load", "kill")[1:]} == {"full_disk"}


def test_an_end_by_the_watch_over_hangs_is_a_busy_machine_a_few_times_only(campaign: Campaign) -> None:
    run = RunFolder(campaign.folder / "run")
    run.watch_folder.mkdir(parents=True)
    assert not campaign._is_starved(run.path)
    (run.watch_folder / "verdict.json").touch()
    assert [campaign._is_starved(run.path) for _ in range(4)] == [True, True, True, False]
    assert campaign.starved == 4


def test_after_a_resize_the_largest_relative_difference_of_a_loss_counts(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"resized": [0.5, 4.0], "straight": [0.4, 4.4]}
    for name, values in losses.items():
        folder = RunFolder(campaign.folder / name)
        folder.path.mkdir(parents=True)
        lines = ({"kind": "train", "step": step, "loss": loss} for step, loss in enumerate(values, 1))
        folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(Campaign, "_start", lambda *_, **__: (0,))
    assert campaign._resize(campaign.folder / "resized", campaign.folder / "straight") == pytest.approx(0.25)


def test_every_damage_of_a_checkpoint_is_counted(campaign: Campaign, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(campaign.shards, campaign.own_shards)
    for step in (4, 8):
        save(RunFolder(run).checkpoints_folder, step, {"weight": torch.full((4,), float(step))})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    while not any(met.name.startswith("checkpoint") for met in campaign.met):
        campaign._damage(run, 3)
    assert (campaign.met[-1].run, campaign.met[-1].complaint) == (3, "")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path.parent.name for path in before if after.get(path) != before[path]} == {"step_00000008"}


def test_what_was_survived_finished_and_has_no_complaint(campaign: Campaign) -> None:
    campaign.finished = {1}
    assert campaign._is_survived(Met("step kill", 1, 0.0))
    assert not campaign._is_survived(Met("step kill", 2, 0.0))
    assert not campaign._is_survived(Met("step kill", 1, 0.0, (), "left behind"))


def test_a_fingerprint_is_of_all_files_of_the_last_complete_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert fingerprint(tmp_path) == {}
    save(run.checkpoints_folder, 4, {"weight": torch.zeros(4)})
    first = fingerprint(tmp_path)
    save(run.checkpoints_folder, 8, {"weight": torch.zeros(4)})
    assert len(first) == 4
    assert (first["step"], fingerprint(tmp_path)["step"]) == ("4", "8")
    assert fingerprint(tmp_path) != first


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_a_file_is_spoiled_as_it_is_said(tmp_path: Path, how: str) -> None:
    content = bytes(range(64))
    for seed in range(20):
        (tmp_path / "file").write_bytes(content)
        spoil(tmp_path / "file", how, random.Random(seed))
        if how == "remove":
            assert not (tmp_path / "file").exists()
            continue
        found = (tmp_path / "file").read_bytes()
        if how == "truncate":
            assert content.startswith(found)
            assert len(found) < 64
        else:
            assert sum((one ^ other).bit_count() for one, other in zip(content, found, strict=True)) == 1


def test_a_planned_call_and_no_other_meets_its_fault(tmp_path: Path) -> None:
    met = tmp_path / "met"
    call = rank._meeting(plan(action="raise", count=2, met_path=str(met), delay_ms=50), lambda value: value, [])
    assert call(1) == 1
    assert not met.exists()
    with pytest.raises(RuntimeError, match="a fault of the campaign"):
        call(2)
    assert met.exists()
    assert call(value=3) == 3


def test_on_a_full_disk_a_file_is_cut_and_afterwards_the_disk_takes_files_again(tmp_path: Path) -> None:
    def write(num_bytes: int) -> int:
        return (tmp_path / "file").write_bytes(bytes(num_bytes))

    call = rank._meeting(plan("write", "full_disk", met_path=str(tmp_path / "met")), write, [])
    with pytest.raises(OSError, match="File too large"):
        call(100_000)
    assert call(100_000) == 100_000
    assert (tmp_path / "met").exists()


def test_a_second_start_is_the_same_command_as_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").touch()
    report = "import os, sys; sys.exit(2 if sys.argv[1:] == ['train', 'x'] and 'RANK' not in os.environ else 1)"
    (tmp_path / "launch" / "__main__.py").write_text(report)
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0")
    met = tmp_path / "met"
    call = rank._meeting(plan("load", "second_start", met_path=str(met)), lambda: "loaded", ["train", "x"])
    assert call() == "loaded"
    assert met.read_text() == "2"


def test_a_rank_that_does_not_leave_is_killed_and_told(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import os, sys, time; time.sleep(60 * int(os.environ['RANK'])); print(os.environ['MASTER_PORT']); sys.exit(3)"
    )
    (tmp_path / "launch" / "__main__.py").write_text(text)
    monkeypatch.setattr(ranks, "_LEAVE_SECONDS", 0.2)
    statuses = ranks.attempt([], 2, (), 0, tmp_path / "log")
    assert statuses == (3, -9, ranks.LEFT_BEHIND)
    assert int((tmp_path / "log").read_text()) > 1024, "the system's choice"
    assert os.environ.get("MASTER_PORT") is None


def test_a_run_has_finished_only_when_all_its_ranks_have(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGE", 0.0)
    campaign.folder.mkdir()
    shutil.copytree(campaign.shards, campaign.own_shards)
    campaign.num_ranks, campaign.to_come = 2, [("step", "kill")] * 3
    # The rank beside the one that is killed leaves with 0.
    campaign._disturb(campaign.folder / "run", 1, 2, None)
    assert len(campaign.met) >= 2
    assert campaign.finished == {1}


def test_a_campaign_saves_evaluates_and_watches_often_enough_for_its_faults(tmp_path: Path) -> None:
    def told(steps: int) -> dict[str, str]:
        campaign = Campaign(["train"], tmp_path, tmp_path / "data", steps=steps, num_ranks=1, seed=0)
        return dict(word.split("=") for word in campaign.overrides)

    assert told(24) == {
        "data.shards": f"{tmp_path}/shards",
        "health.hang_seconds": f"{chaos.HANG_SECONDS}",
        "checkpoint.save_every_steps": "3",
        "train.evaluate_every_steps": "8",
    }
    assert (told(2)["checkpoint.save_every_steps"], told(2)["train.evaluate_every_steps"]) == ("1", "1")


@pytest.fixture
def starts(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What each start of ranks was asked for; they leave with 0."""
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(chaos, "attempt", lambda *words: asked.append(words) or (0,))
    return asked


def test_a_run_is_started_with_its_command_and_any_of_its_ranks_meets_the_faults_but_those_of_the_first(
    campaign: Campaign, starts: list[tuple[object, ...]]
) -> None:
    campaign.num_ranks, run = 4, campaign.folder / "run"
    for place in ("step", "make", "commit"):
        for _ in range(30):
            assert campaign._start(run, [plan(place)]) == (0,)
    victims = [victim for _, _, _, victim, _ in starts]
    assert set(victims[:30]) == {0, 1, 2, 3}
    assert set(victims[30:]) == {0}
    words, num_ranks, plans, _, log = starts[0]
    assert words == ["train", "config.yaml", *campaign.overrides, "--run", str(run), "--json"]
    assert (num_ranks, plans, log) == (4, [plan("step")], campaign.folder / "log")


def test_what_fills_the_disk_is_removed_after_a_start(campaign: Campaign, starts: list[tuple[object, ...]]) -> None:
    campaign.folder.mkdir()
    campaign.ballast = campaign.folder / ".ballast"
    for _ in range(2):
        campaign._start(campaign.folder / "run")
        campaign.ballast.touch()
    assert campaign._plan("write", "full_disk").ballast_path == str(campaign.ballast)
    campaign._start(campaign.folder / "run")
    assert not campaign.ballast.exists()
    campaign.ballast = None
    assert campaign._plan("write", "full_disk").ballast_path == ""


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2), (5, 2)])
def test_a_resized_run_meets_a_kill_and_is_finished_by_another_number_of_ranks(
    campaign: Campaign, starts: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    monkeypatch.setattr(chaos, "_losses", lambda _: [2.0])
    campaign.num_ranks = before
    assert campaign._resize(campaign.folder / "a", campaign.folder / "b") == 0.0
    first, second = starts
    assert (first[1], second[1]) == (before, after)
    assert [(each.place, each.action) for each in first[2]] == [("step", "kill")]
    assert second[2] == ()
    monkeypatch.setattr(chaos, "attempt", lambda *_: (0, 1))
    assert campaign._resize(campaign.folder / "a", campaign.folder / "b") == float("inf")


def test_losses_are_those_of_training(campaign: Campaign) -> None:
    folder = RunFolder(campaign.folder / "run")
    folder.path.mkdir(parents=True)
    lines = [{"kind": "train", "loss": 2.0}, {"kind": "evaluation", "loss": 9.0}, {"kind": "train", "loss": 1.0}]
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert chaos._losses(folder.path) == [2.0, 1.0]


def test_damage_between_two_starts_is_of_records_checkpoints_or_shards_and_is_mended_where_it_is_a_shard(
    campaign: Campaign, starts: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(campaign.folder / "run")
    run.checkpoints_folder.mkdir(parents=True)
    shutil.copytree(campaign.shards, campaign.own_shards)
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGED_HISTORY", 1.0)
    campaign._damage(run.path, 3)
    assert campaign.met == [], "there is nothing to damage"
    run.metrics_path.write_text("{}\n")
    campaign._damage(run.path, 3)
    [met] = campaign.met
    assert met.name.startswith("bookkeeping: metrics.jsonl ")
    assert (met.run, met.seconds) == (3, 0.0)
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGED_HISTORY", 0.0)
    sizes: list[list[int]] = []

    def attempt(*_: object) -> tuple[int, ...]:
        sizes.append([path.stat().st_size for path in sorted(campaign.own_shards.glob("*.tar"))])
        return (2, 2)

    monkeypatch.setattr(chaos, "attempt", attempt)
    while not sizes:
        campaign._damage(run.path, 4)
    assert min(sizes[0]) < 100 == max(sizes[0])
    assert [path.stat().st_size for path in campaign.own_shards.glob("*.tar")] == [100, 100]
    met = campaign.met[-1]
    assert (met.name, met.run, met.statuses, met.complaint) == ("shard truncate", 4, (2, 2), "")
    # One checkpoint alone is what a start needs.
    save(run.checkpoints_folder, 4, {"weight": torch.zeros(4)})
    monkeypatch.setattr(chaos, "attempt", lambda *_: (2, 2))
    for _ in range(20):
        campaign._damage(run.path, 5)
    assert not [each for each in campaign.met if each.name.startswith("checkpoint")]


@pytest.mark.parametrize("place", ["make", "start", "step", "write", "commit", "evaluation", "load"])
def test_a_rank_of_a_campaign_is_the_command_that_meets_its_plan_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    owners = {
        "make": (creation, "copy_code"),
        "start": (composition, "train_loader"),
        "step": (Engine, "start"),
        "write": (store, "write"),
        "commit": (store.Store, "_commit"),
        "evaluation": (composition, "evaluate"),
        "load": (store.Store, "load"),
    }
    for owner, name in owners.values():
        monkeypatch.setattr(owner, name, getattr(owner, name))
    before = {other: getattr(*owners[other]) for other in owners}
    seen: list[list[str]] = []
    monkeypatch.setattr(main, "main", lambda: seen.append(sys.argv))
    monkeypatch.setattr(sys, "argv", sys.argv)
    met = tmp_path / "met"
    rank.main([plan(place, "raise", met_path=str(met))], ["train", "x"])
    assert seen == [["perceiver", "train", "x"]]
    assert [other for other in owners if getattr(*owners[other]) is not before[other]] == [place]
    with pytest.raises(RuntimeError, match="a fault of the campaign"):
        getattr(*owners[place])()
    assert met.exists()


def test_the_program_of_a_rank_has_its_plans_as_first_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan("step", "raise", met_path=str(tmp_path / "met"))
    seen: list[list[str]] = []
    monkeypatch.setattr(Engine, "start", Engine.start)
    # A copy: runpy puts its first word back afterwards.
    monkeypatch.setattr(main, "main", lambda: seen.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["rank.py", json.dumps([asdict(planned)]), "train", "x"])
    runpy.run_path(rank.__file__, run_name="__main__")
    assert seen == [["perceiver", "train", "x"]]
    with pytest.raises(RuntimeError, match="a fault of the campaign"):
        Engine.start()


@pytest.mark.parametrize(
    ("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP), ("terminate", None)]
)
def test_a_fault_is_that_signal_to_the_own_process_and_comes_as_late_as_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, number: int | None
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *words: sent.append(words))
    met = tmp_path / "met"
    call = rank._meeting(plan("step", action, met_path=str(met)), lambda: met.exists(), [])
    assert call(), "it comes before the call"
    assert sent == ([(os.getpid(), number)] if number else [])
    met.unlink()
    late: list[tuple[float, object, tuple[Plan, ...]]] = []
    monkeypatch.setattr(
        rank.threading,
        "Timer",
        lambda *words: late.append(words) or SimpleNamespace(start=lambda: late.append("begun")),
    )
    late_plan = plan("step", action, met_path=str(met), delay_ms=20)
    assert not rank._meeting(late_plan, lambda: met.exists(), [])()
    assert late == [(0.02, rank._happen, (late_plan,)), "begun"]


def test_a_full_disk_of_its_own_is_filled_during_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    @contextmanager
    def filled(ballast: Path) -> Iterator[None]:
        events.append(ballast)
        yield
        events.append("free again")

    monkeypatch.setattr(rank, "filled", filled)
    full = plan("write", "full_disk", met_path=str(tmp_path / "met"), ballast_path=str(tmp_path / ".ballast"))
    rank._meeting(full, lambda: events.append("written"), [])()
    assert events == [tmp_path / ".ballast", "written", "free again"]
    assert (tmp_path / "met").exists()


def test_ranks_know_each_other_the_victim_its_plans_and_a_term_that_is_planned_reaches_all(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = """
import json, os, pathlib, signal, socket, sys, time
if os.environ["RANK"] == "0":
    # Nobody else has the port, and the first rank may listen on it.
    listening = socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"])))
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
# In one call: print() makes two where output is not buffered, and two ranks write into this file.
os.write(1, (json.dumps([os.environ[name] for name in names] + sys.argv[1:]) + "\\n").encode())
signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))
for word in sys.argv[1:2]:
    for plan in json.loads(word) if word.startswith("[") else ():
        pathlib.Path(plan["met_path"]).touch()
time.sleep(30)
"""
    for name in ("__main__", "chaos/rank"):
        (tmp_path / "launch" / f"{name}.py").write_text(report)
    planned = plan("step", "terminate", met_path=str(tmp_path / "met"))
    # The other must have its handler before the victim says that it is there.
    statuses = ranks.attempt(["train", "x"], 2, [planned], 1, tmp_path / "log")
    assert set(statuses) <= {85, -signal.SIGTERM}, (tmp_path / "log").read_text()
    assert len(statuses) == 2
    rows = sorted(json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    assert rows[-1] == ["1", "1", "2", "127.0.0.1", "1", json.dumps([asdict(planned)]), "train", "x"]
    assert rows[0] in (rows[-1], ["0", "0", "2", "127.0.0.1", "1", "train", "x"])


def test_the_shard_and_the_file_that_a_seed_damages_do_not_depend_on_the_order_in_which_a_disk_lists_them(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = RunFolder(campaign.folder / "run"), Path.rglob
    run.checkpoints_folder.mkdir(parents=True)
    shutil.copytree(campaign.shards, campaign.own_shards)
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGED_HISTORY", 0.0)
    cut: list[list[list[str]]] = []
    for is_reversed in (False, True):
        listed: list[list[str]] = []

        def rglob(path: Path, pattern: str, is_reversed: bool = is_reversed) -> list[Path]:
            return sorted(found(path, pattern), reverse=is_reversed)

        def attempt(*_: object, listed: list[list[str]] = listed) -> tuple[int, ...]:
            listed.append([path.name for path in campaign.own_shards.iterdir() if path.stat().st_size < 100])
            return (2,)

        monkeypatch.setattr(Path, "rglob", rglob)
        monkeypatch.setattr(chaos, "attempt", attempt)
        campaign.random = random.Random(7)
        while len(listed) < 6:
            campaign._damage(run.path, 1)
        cut.append(listed)
    assert cut[0] == cut[1]
    assert {name for [name] in cut[0]} == {"0.tar", "1.tar"}


@pytest.mark.parametrize(
    ("answer", "is_counted"),
    [((True, ""), True), ((True, "left"), True), ((False, "failed"), True), ((False, ""), False)],
)
def test_a_supervisor_that_was_killed_or_failed_is_counted_with_what_was_wrong(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, answer: tuple[bool, str], is_counted: bool
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(chaos, "kill_supervisor", lambda *words: asked.append(words) or answer)
    for _ in range(20):
        campaign._kill_supervisor(campaign.folder / "run", 3)
    found = {(met.name, met.run, met.statuses, met.complaint) for met in campaign.met}
    assert found == ({("supervisor kill", 3, (), answer[1])} if is_counted else set())
    words, folder, num_ranks, _, log = asked[0]
    assert words == campaign._arguments(campaign.folder / "run")
    assert (folder, num_ranks, log) == (RunFolder(campaign.folder / "run"), 1, campaign.folder / "log")
    assert {each[3] for each in asked} == {0, 1}, "some are killed before a save and some after one"


@pytest.mark.parametrize("leaves", [(10.0, 1000.0), (1000.0, 10.0)])
def test_whichever_rank_leaves_first_the_others_have_a_minute(
    monkeypatch: pytest.MonkeyPatch, leaves: tuple[float, float]
) -> None:
    now = 0.0

    def pause(_: float) -> None:
        nonlocal now
        now += 1.0

    clock = SimpleNamespace(monotonic=lambda: now, sleep=pause)
    monkeypatch.setattr(ranks, "time", clock)
    statuses = ranks._watched([Leaving(clock, at) for at in leaves], [])
    assert statuses == (*(0 if at == 10.0 else -9 for at in leaves), ranks.LEFT_BEHIND)
    assert now == 72.0


@pytest.fixture
def quick(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a campaign of two ranks asks for, a line each; its starts end at once, and every look at a clock is 0.26 s
    after the last."""
    asked: list[str] = []
    clock, same = iter(range(10_000)), campaign.folder.parent / "same"

    def attempt(words: list[str], num_ranks: int, plans: Sequence[Plan], victim: int, _log: Path) -> tuple[int, ...]:
        run = Path(words[words.index("--run") + 1])
        planned = ", ".join(
            f"{each.place} {each.count} {each.action} after {each.delay_ms} ms"
            + (" on its disk" if each.ballast_path == f"{run.parent}/.ballast" else "")
            for each in plans
        )
        asked.append(f"{run.relative_to(campaign.folder)}, {num_ranks} ranks" + f", {victim}: {planned}" * bool(plans))
        if any(path.stat().st_size < 100 for path in campaign.own_shards.glob("*.tar")):
            return (2,) * num_ranks
        for each in plans:
            Path(each.met_path).write_text("2")
        run.mkdir(parents=True, exist_ok=True)
        RunFolder(run).metrics_path.write_text('{"kind": "train", "step": 1, "loss": 2.0}\n')
        shutil.copytree(same, RunFolder(run).checkpoints_folder, dirs_exist_ok=True)
        if any(each.action == "terminate" for each in plans):
            return (85,) * num_ranks
        return (1,) * num_ranks if any(each.action not in ("full_disk", "second_start") for each in plans) else (0, 0)

    @contextmanager
    def small_disk(folder: Path, like: Path) -> Iterator[Path]:
        asked.append(f"a disk for {folder.name} like {like.name}")
        folder.mkdir()
        yield folder / ".ballast"

    def kill_supervisor(_words: list[str], folder: RunFolder, *words: object) -> tuple[bool, str]:
        asked.append(f"{folder.path.relative_to(campaign.folder)}, {words[0]} ranks, supervisor kill: saves {words[1]}")
        return True, ""

    save(same, 4, {"weight": torch.zeros(4)})
    monkeypatch.setattr(chaos, "attempt", attempt)
    monkeypatch.setattr(chaos, "small_disk", small_disk)
    monkeypatch.setattr(chaos, "kill_supervisor", kill_supervisor)
    monkeypatch.setattr(chaos, "damage_history", lambda *_: asked.append("records") or "metrics.jsonl cut")
    monkeypatch.setattr(chaos, "spoil", lambda path, how, _: asked.append(f"{how} {path.parent.name}/{path.name}"))
    monkeypatch.setattr(chaos, "time", SimpleNamespace(monotonic=lambda: 0.26 * next(clock)))
    monkeypatch.setattr(chaos, "_SHARE_OF_DAMAGED_HISTORY", SHARE_OF_DAMAGED_HISTORY)
    monkeypatch.setattr(campaign, "num_ranks", 2)
    return asked


SEED_5 = """
straight, 2 ranks
a disk for run_1 like straight
run_1/run, 2 ranks, 0: make 1 kill after 0 ms on its disk
run_1/run, 2 ranks, 0: commit 1 kill after 1 ms on its disk, load 1 second_start after 1 ms on its disk
records
run_1/run, 2 ranks, 0: step 8 stop after 1 ms on its disk, write 1 full_disk after 1 ms on its disk
run_1/run, 2 ranks, 0: load 1 kill after 5 ms on its disk
flip step_00000008/weight-00000-of-00001.safetensors
run_1/run, 2 ranks
a disk for run_2 like straight
run_2/run, 2 ranks, supervisor kill: saves 0
run_2/run, 2 ranks, 1: evaluation 1 kill after 20 ms on its disk, write 2 full_disk after 5 ms on its disk, \
load 1 second_start after 0 ms on its disk
records
run_2/run, 2 ranks, 0: step 5 raise after 20 ms on its disk, load 1 second_start after 1 ms on its disk
run_2/run, 2 ranks
run_2/run, 2 ranks
a disk for run_3 like straight
run_3/run, 2 ranks, 0: make 1 kill after 20 ms on its disk
records
run_3/run, 2 ranks, supervisor kill: saves 0
run_3/run, 2 ranks, 1: evaluation 1 raise after 1 ms on its disk, write 2 full_disk after 20 ms on its disk
run_3/run, 2 ranks
"""
"""A campaign that found a fault is repeated by its seed: the same starts, faults and damage, in the same order."""


def test_a_seed_is_one_campaign(campaign: Campaign, quick: list[str]) -> None:
    told: list[tuple[int, int]] = []
    report = campaign.run(20, progress=lambda done, total: told.append((done, total)))
    assert quick == SEED_5.strip().splitlines()
    assert told[-1] == (21, 20)
    assert campaign.finished == campaign.equal == {1, 2, 3}
    assert campaign.ballast is None
    met = report.pop("met")
    assert [(each["name"], each["run"], each["seconds"], each["statuses"]) for each in met] == [
        ("make kill", 1, 0.3, (1, 1)),
        ("commit kill", 1, 0.3, (1, 1)),
        ("load second_start", 1, 0.5, (1, 1)),
        ("bookkeeping: metrics.jsonl cut", 1, 0.0, ()),
        ("step stop", 1, 0.3, (1, 1)),
        ("write full_disk", 1, 0.5, (1, 1)),
        ("load kill", 1, 0.3, (1, 1)),
        ("checkpoint flip", 1, 0.0, ()),
        ("supervisor kill", 2, 0.3, ()),
        ("evaluation kill", 2, 0.3, (1, 1)),
        ("write full_disk", 2, 0.5, (1, 1)),
        ("load second_start", 2, 0.8, (1, 1)),
        ("bookkeeping: metrics.jsonl cut", 2, 0.0, ()),
        ("step raise", 2, 0.3, (1, 1)),
        ("load second_start", 2, 0.5, (1, 1)),
        ("shard truncate", 2, 0.3, (2, 2)),
        ("make kill", 3, 0.3, (1, 1)),
        ("bookkeeping: metrics.jsonl cut", 3, 0.0, ()),
        ("supervisor kill", 3, 0.3, ()),
        ("evaluation raise", 3, 0.3, (1, 1)),
        ("write full_disk", 3, 0.5, (1, 1)),
    ]
    assert not any(each["complaint"] for each in met)
    assert report == {
        "faults": 21,
        "survived": 21,
        "bit_equal": 21,
        "kinds": dict(Counter(each["name"] for each in met)),
        "starved": 0,
        "runs": 3,
        "resizes": 0,
        "resized_loss_difference": 0.0,
        "ranks": 2,
        "seed": 5,
        "seconds": 8.3,
    }


def test_the_worst_of_several_resizes_is_told(
    campaign: Campaign, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    differences = {"resized_0": 0.1, "resized_1": 0.3, "resized_2": 0.2}
    resized: list[str] = []

    def resize(_: Campaign, folder: Path, straight: Path) -> float:
        resized.append(straight.name)
        return differences[folder.name]

    monkeypatch.setattr(Campaign, "_resize", resize)
    # Of a folder in one that is not there either.
    campaign.folder /= "below"
    report = campaign.run(0, num_resizes=3)
    assert (report["resizes"], report["resized_loss_difference"], resized) == (3, 0.3, ["straight"] * 3)
    assert quick == ["straight, 2 ranks"]
    # A folder that is there is another campaign's.
    shutil.rmtree(campaign.own_shards)
    with pytest.raises(FileExistsError):
        campaign.run(0)


@pytest.mark.parametrize("statuses", [(1, 0), (1, 1)])
def test_a_run_that_fails_without_a_fault_ends_the_campaign_unless_the_machine_was_busy(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...]
) -> None:
    left = [statuses, (0, 0)]
    monkeypatch.setattr(chaos, "attempt", lambda *_: left.pop(0))
    monkeypatch.setattr(chaos, "small_disk", lambda *_: nullcontext())
    run = RunFolder(campaign.folder / "run")
    with pytest.raises(RuntimeError, match=rf"run 1 fails by itself, statuses {re.escape(str(statuses))}; see .*/log"):
        campaign._disturb(run.path, 1, 0, None)
    run.watch_folder.mkdir(parents=True)
    (run.watch_folder / "verdict.json").touch()
    left = [statuses, (0, 0)]
    campaign._disturb(run.path, 1, 0, None)
    assert (campaign.starved, campaign.finished, left) == (1, {1}, [])
    left = [statuses]
    shutil.rmtree(run.path.parent)
    with pytest.raises(RuntimeError, match="the run fails undisturbed"):
        campaign.run(0)
