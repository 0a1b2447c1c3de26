"""The verdict of the hang watch: the ranks that held up the job. Standard library only: attempts.py reads it."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "verdict.json"


@dataclass(frozen=True)
class Verdict:
    """The finding of one rank, on which all ranks act."""

    culprits: tuple[int, ...]
    """The ranks that held up the job."""
    pids: tuple[int, ...]
    """The ids of their processes, in the same order: a verdict of one attempt may be there while another runs."""
    named: str
    """The ranks and the reasons, in words."""
    found_by: int
    """The rank that found it."""


def text(verdict: Verdict) -> str:
    """Return the content of the file."""
    return json.dumps(asdict(verdict))


def convicted_pids(folder: Path) -> dict[int, int]:
    """Return the process of each rank that was convicted; nothing without a verdict that can be read."""
    # Without a verdict the record of attempts goes by the rank that fell silent or failed first.
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / NAME).read_text())
        return dict(zip(content["culprits"], content["pids"], strict=True))
    return {}
