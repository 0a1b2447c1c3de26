"""Parts of answers belong to one command at a time, and to the same one after a kill, on whichever host."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch

from data_shards.files import atomic
from launch.answers.parts import Parts
from trainer.distributed.world import World

PLAN: dict[str, str | int] = {"command": "predict", "samples": 4}


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "new" / "out.jsonl", 4, 2)


@pytest.fixture
def world() -> World:
    return World(0, 1, 0, torch.device("cpu"))


def answered(parts: Parts, world: World) -> bool:
    """Do all that a command does, with a line a part; return whether OUT was finished already."""
    with parts.claimed(world):
        is_finished = parts.open(PLAN, ())
        if not is_finished:
            parts.answer(world, parts.share(world), lambda part: f"{part}\n".encode(), lambda _done, _total: None)
            parts.finish(join, parts.out.with_name("skipped"))
    return is_finished


def join(paths: list[Path] | tuple[Path, ...], hidden: Path) -> None:
    hidden.write_bytes(b"".join(path.read_bytes() for path in paths))


def test_a_command_that_was_killed_on_another_host_resumes_here(parts: Parts, world: World) -> None:
    parts.folder.mkdir(parents=True)
    (parts.folder / "plan.json").write_text(json.dumps(PLAN))
    (parts.folder / "000000").write_text("0\n")
    (parts.folder / "lock").write_text(json.dumps({"host": "node-of-before", "pid": 1, "since": "today"}))
    answered(parts, world)
    assert parts.out.read_text() == "0\n1\n"


def test_where_no_folder_can_be_made_is_told_in_one_sentence(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(path: Path, *_args: object, **_options: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    # As in /proc, where the kernel says that there is no such file.
    monkeypatch.setattr(Path, "mkdir", mkdir)
    sentence = r"out\.jsonl\.unfinished: cannot be made \(No such file or directory\); choose another --out$"
    with pytest.raises(ValueError, match=sentence), parts.claimed(world):
        pytest.fail("begun")


def test_of_two_commands_at_once_the_second_is_told_who_writes_the_answers(parts: Parts, world: World) -> None:
    with parts.claimed(world):
        parts.open(PLAN, ())
        with (
            pytest.raises(ValueError, match=r"lock: process \d+ on .*, writes the same answers; wait for it$"),
            parts.claimed(world),
        ):
            pass
    assert parts.folder.exists(), "the second one removes nothing"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": 16, "weights": "b"}, r"(step: 8 then, 16 now: --checkpoint 8); repeat that one"),
        ({"weights": "b"}, r"(other weights of the same step"),
        (
            {"of": "d", "samples": 5},
            r"(other files or shards, or some of them have changed since; samples: 4 then, 5 now)",
        ),
        ({"top": 2}, r"(top: 1 then, 2 now)"),
        ({"latents": "mean"}, r"(latents: None then, mean now)"),
        (
            {"batch": 4, "command": "embed", "run": "r", "samples": 5, "top": 2},
            r"(batch: None then, 4 now; command: predict then, embed now; run: None then, r now; "
            r"samples: 4 then, 5 now; top: 1 then, 2 now)",
        ),
    ],
)
def test_another_command_is_told_what_is_other_in_words_that_its_user_knows(
    parts: Parts, changes: dict[str, str | int], words: str
) -> None:
    parts.folder.mkdir(parents=True)
    plan = PLAN | {"step": 8, "weights": "a", "of": "c", "top": 1}
    parts.open(plan, ())
    # Before the first answer there is nothing to lose, and nothing to tell.
    (parts.folder / "000000").write_text("0\n")
    with pytest.raises(ValueError, match=re.escape(words)):
        parts.open(plan | changes, ())


def test_a_table_that_somebody_else_made_meanwhile_is_not_taken_for_the_own_one(parts: Parts) -> None:
    parts.folder.mkdir(parents=True)
    assert not parts.open(PLAN, ())
    assert not parts.open(PLAN, ())
    parts.out.write_text("mine\n")
    with pytest.raises(ValueError, match=r"out\.jsonl: is there already; move it away"):
        parts.open(PLAN, ())
    (parts.folder / "joined").touch()
    assert parts.open(PLAN, ())


def test_a_folder_has_at_most_a_thousand_parts_of_equal_batches(tmp_path: Path) -> None:
    assert [len(Parts(tmp_path, number, 1).paths) for number in (999, 1_000, 1_001, 2_001)] == [999, 1_000, 501, 667]
    parts = Parts(tmp_path, 2_001, 2)
    assert (parts.num_batches, parts.batches_a_part) == (1_001, 2)
    assert [parts.batches(part) for part in (0, 1, 500)] == [range(2), range(2, 4), range(1_000, 1_001)]


def test_ranks_divide_what_is_missing_into_consecutive_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, heard = Parts(tmp_path / "out.jsonl", 14, 2), list[list[int]]()

    def broadcast(world: World, item: list[int]) -> list[int]:
        # Only what the first rank saw counts.
        if world.is_first:
            heard.append(item)
        assert world.is_first or item == []
        return heard[0]

    monkeypatch.setattr(World, "broadcast", broadcast)
    parts.folder.mkdir()
    parts.paths[3].touch()
    shares = [parts.share(World(rank, 4, 0, torch.device("cpu"))) for rank in range(4)]
    assert shares == [[0], [1, 2], [4], [5, 6]]


@pytest.mark.parametrize(
    ("rank", "mine", "written", "told"), [(0, [0, 1], [0, 1], [(24, 27), (27, 27)]), (1, [2], [2], [])]
)
def test_each_rank_answers_its_parts_and_the_first_tells_of_all(
    rank: int, mine: list[int], written: list[int], told: list[tuple[int, int]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("launch.answers.parts._MOST_PARTS", 4)
    exchanges: list[torch.Tensor] = []
    monkeypatch.setattr(World, "gather", lambda _world, _item: [2, 1])
    monkeypatch.setattr(World, "maximum", lambda _world, tensor: exchanges.append(tensor) or tensor)
    parts, seen = Parts(tmp_path / "out.jsonl", 27, 2), list[tuple[int, int]]()
    parts.folder.mkdir()
    world = World(rank, 2, 0, torch.device("cpu"))
    # Four batches of two a part: one part of four is there already.
    parts.answer(world, mine, lambda part: f"{part}\n".encode(), lambda done, total: seen.append((done, total)))
    assert [number for number in range(4) if parts.paths[number].exists()] == written
    assert (seen, len(exchanges)) == (told, 2)


def test_a_further_rank_neither_makes_the_folder_nor_removes_it(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanges: list[torch.Tensor] = []
    monkeypatch.setattr(World, "maximum", lambda _world, tensor: exchanges.append(tensor) or tensor)
    with parts.claimed(World(1, 2, 0, torch.device("cpu"))):
        assert not parts.folder.exists()
        assert len(exchanges) == 1, "the first rank waits for this one"
        parts.folder.mkdir(parents=True)
    assert parts.folder.exists()


def test_who_is_killed_while_parts_are_removed_leaves_none_that_count(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        (path / "000000").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            answered(parts, world)
    assert parts.out.read_text() == "0\n1\n"
    with pytest.raises(ValueError, match=r"out\.jsonl: is there already"):
        answered(parts, world)
    assert not parts.folder.exists()
