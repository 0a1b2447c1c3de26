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
    return Parts(tmp_path / "out.jsonl", 4, 2)


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
    parts.folder.mkdir()
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
    ],
)
def test_another_command_is_told_what_is_other_in_words_that_its_user_knows(
    parts: Parts, changes: dict[str, str | int], words: str
) -> None:
    parts.folder.mkdir()
    plan = PLAN | {"step": 8, "weights": "a", "of": "c", "top": 1}
    parts.open(plan, ())
    # Before the first answer there is nothing to lose, and nothing to tell.
    (parts.folder / "000000").write_text("0\n")
    with pytest.raises(ValueError, match=re.escape(words)):
        parts.open(plan | changes, ())


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
