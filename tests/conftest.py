"""Shapes are checked while the tests run: every jaxtyping annotation of the model is executed."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["model"], "beartype.beartype")

SLURM, RUNS = (Path(__file__).parent / name for name in ("slurm", "runs"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first: files of a Slurm and of whole runs in turn.

    A Slurm mostly waits, and keeps few cores busy; several at once would miss the times that they set each other.
    """
    of_both = [dict.fromkeys(item.path for item in items if item.path.parent == folder) for folder in (SLURM, RUNS)]
    first = [path for pair in zip_longest(*of_both) for path in pair]
    items.sort(key=lambda item: first.index(item.path) if item.path in first else len(first))


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what was imported: DeepSpeed calls it whenever it makes a stage 3."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def arithmetic_of_the_process() -> Iterator[None]:
    """What a run or DeepSpeed sets for the whole process ends with the test that trained."""
    yield
    if torch := sys.modules.get("torch"):
        torch.use_deterministic_algorithms(False)
        # DeepSpeed's ZeRO 3 puts a function of its own in this place, under which autocast rounds elsewhere.
        torch.nn.functional.linear = torch._C._nn.linear


LINES = (
    "the quick brown fox jumps over the lazy dog",
    "every word of this text is known to the tokenizer",
    "a cat and a dog sat on the mat",
)


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A byte-level tokenizer, whose id 0 is a letter, and a unigram one, trained on a few lines: files by name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizers")
    bytes_, unigram = Tokenizer(models.BPE()), Tokenizer(models.Unigram())
    bytes_.pre_tokenizer, bytes_.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    bytes_.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=letters, show_progress=False)
    )
    bytes_.add_special_tokens(["[MASK]", "[PAD]"])
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "<unk>", "<mask>"]
    unigram.train_from_iterator(
        LINES, trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    paths = {"bytes": folder / "bytes.json", "unigram": folder / "unigram.json"}
    bytes_.save(str(paths["bytes"]))
    unigram.save(str(paths["unigram"]))
    return paths


@pytest.fixture(autouse=True, scope="session")
def disk_without_power_cuts() -> Iterator[None]:
    """Nothing waits for the disk in the processes of the tests themselves: a third of the fast tests' time was fsync.

    No test cuts the power. In which order what is synced, `disk_calls` notes; processes that tests start do sync.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def heard_signals() -> Iterator[None]:
    """This process and what it starts hear SIGINT and SIGHUP, also where these tests run under nohup or behind an &."""
    hearing = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in hearing.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The paths that are synced and the names that are given, in order; the calls themselves are made."""
    made: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def noted_fsync(descriptor: int) -> None:
        made.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def noted_replace(source: str, target: str) -> None:
        made.append(("name", str(target)))
        replace(source, target)

    def noted_rename(source: str, target: str) -> None:
        made.append(("name", str(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(os, "rename", noted_rename)
    return made
