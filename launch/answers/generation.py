"""`perceiver generate`: prompts that the network of a run continues, as texts or as arrays."""

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.run import MOST_SEED
from data_shards.files import atomic
from data_shards.files.display import printable_lines
from data_shards.files.history import tell
from data_shards.files.quoting import counted
from data_shards.files.regular_file import open_regular
from data_shards.modalities.decoding.numbers import finite, numbers
from data_shards.modalities.kinds.array import ArrayConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transforms.text import never_written, whole_text
from launch.answers.loaded_run import LoadedRun, load_run
from model.generation.sampling import Sampling, continued
from model.perceiver import Perceiver

Tell = Callable[[int, int], object]
# Of a prompt that is a file, which is read whole.
_MOST_BYTES = 1 << 28
_MOST_PROMPTS = _MOST_BYTES
"""Each has at least a byte in their file, and a seed of its own."""


@dataclass(frozen=True)
class Request:
    """What is to be continued, and how."""

    prompts: Sequence[str]
    """Texts, or files of arrays; none continues from the beginning."""
    prompts_path: Path | None
    """A file with more of them, one a line."""
    length: int
    """Bytes, tokens, or entries of an array's first axis that are added to each."""
    sampling: Sampling
    """How what comes next is chosen."""
    seed: int
    """Seed of the first prompt; that of each further one is one more."""
    out: Path | None
    """A file for texts, as JSON lines, or the folder for arrays."""
    as_json: bool
    """Whether texts are printed as JSON lines."""


@dataclass(frozen=True)
class Chosen:
    """Which of a run's weights continue."""

    checkpoint: str
    """A checkpoint, as in trainer/checkpoint/choice.py."""
    weights: str
    """The weights of that, as `load_run` has them."""
    trust_code: bool
    """Whether its plug-ins may run."""


def main(run: Path, request: Request, chosen: Chosen, progress: Tell) -> int:
    """Print what the network of a run continues the prompts with, or write it; return the exit status."""
    _check(request)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_run(
        run, checkpoint=chosen.checkpoint, weights=chosen.weights, device=device, trust_code=chosen.trust_code
    )
    for note in loaded.notes:
        tell(note)
    name = loaded.config.model.stream
    if not name or not isinstance(loaded.network, Perceiver):
        raise ValueError(f"{run}: its network continues nothing: no output of it is of kind autoregressive")
    section = loaded.config.data.inputs[name]
    # Without a prompt the beginning is continued.
    prompts = [*request.prompts, *_lines(request.prompts_path)] or [""]
    if isinstance(section, TextConfig):
        _texts(loaded, section, prompts, request, progress)
    else:
        assert isinstance(section, ArrayConfig)
        _arrays(loaded, section, name, prompts, request, progress)
    return 0


def _check(request: Request) -> None:
    problems = [f"--{key.replace('_', '-')}: {sentence}" for key, sentence in request.sampling.problems()]
    if not 0 <= request.seed <= MOST_SEED - _MOST_PROMPTS:
        problems.append(f"--seed: must be from 0 to {MOST_SEED - _MOST_PROMPTS}, got {request.seed}")
    # Before anything is generated, which may take hours.
    if request.out is not None:
        problems += _out_problems(request.out)
    if problems:
        raise ValueError("\n".join(problems))


def _out_problems(out: Path) -> Iterator[str]:
    if out.exists():
        yield f"--out {out}: is there already; choose another name or remove it"
        return
    # Folders above are made, once there is something to write.
    above = next(each for each in out.absolute().parents if each.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        yield f"--out {out}: cannot be written: {above} is no folder that can be written to; choose another name"


def _lines(path: Path | None) -> list[str]:
    """The prompts of a file, one a line."""
    if path is None:
        return []
    content = _content(path).removeprefix(codecs.BOM_UTF8)
    try:
        # As bytes: a text may hold characters at which str.splitlines() would split it.
        lines = [line.decode() for line in content.splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected prompts in UTF-8, one a line ({error})") from error
    if not lines:
        raise ValueError(f"{path}: expected a prompt a line, and it is empty")
    return lines


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = bytes(file.read(_MOST_BYTES + 1))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path}: has more than {_MOST_BYTES} bytes, and no prompt has")
    return content


def _texts(loaded: LoadedRun, section: TextConfig, prompts: list[str], request: Request, progress: Tell) -> None:
    rows: list[dict[str, Any]] = []
    # Ids that stand for no text, such as padding, are never drawn.
    never = never_written(section)
    for number, prompt in enumerate(prompts):
        known = torch.from_numpy(whole_text(prompt.encode(errors="surrogateescape"), section).astype(np.int64))[None]
        found = _continued(loaded, known, request.length, number, len(prompts), request, progress, never)
        ids = found[0].cpu().numpy()
        row = {"prompt": prompt, "text": section.words(ids), "continuation": section.words(ids[known.shape[1] :])}
        rows.append(row | {"seed": request.seed + number, "step": loaded.step})
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    if request.out is not None:
        request.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(request.out, lines)
    # Control characters that a network writes are no commands to a terminal.
    texts = "\n\n".join(printable_lines(row["text"]) for row in rows) + "\n"
    sys.stdout.write(lines if request.as_json else texts)


def _arrays(
    loaded: LoadedRun, section: ArrayConfig, name: str, prompts: list[str], request: Request, progress: Tell
) -> None:
    if request.out is None:
        raise ValueError(f"--out: is needed, a folder for the arrays that continue inputs.{name}")
    if section.standardize:
        raise ValueError(
            f"data.inputs.{name}.standardize: brings each array to its own mean, which nobody knows of one that is not "
            "yet whole; train a run without it"
        )
    shape, rest = tuple(section.shape), tuple(section.shape[1:])
    beginnings = [_beginning(prompt, section) if prompt else np.zeros((0, *rest), np.float32) for prompt in prompts]
    output = loaded.config.model.answers()[next(iter(loaded.config.model.outputs))]
    num_channels = output.stream.num_channels  # type: ignore[attr-defined]  # an AutoregressiveOutput
    # A network continues single vectors of channels; --length counts entries of the first axis, as a user sees the
    # array.
    per_entry = prod(rest) // num_channels
    for prompt, beginning in zip(prompts, beginnings, strict=True):
        # A series may go on without end; an array of more axes has positions for its own shape alone.
        if per_entry > 1 and len(beginning) + request.length > shape[0]:
            raise ValueError(
                f"--length {request.length}: makes more than the {shape[0]} entries of data.inputs.{name}, with "
                f"{len(beginning)} of {prompt or 'no prompt'}; ask for fewer"
            )
    wholes = []
    for number, beginning in enumerate(beginnings):
        known = torch.from_numpy(beginning).view(1, -1, num_channels)
        found = _continued(loaded, known, request.length * per_entry, number, len(prompts), request, progress)
        wholes.append(found.cpu().numpy().reshape(-1, *rest))
    # Only now: a prompt that cannot be continued leaves no empty folder.
    request.out.mkdir(parents=True)
    for number, whole in enumerate(wholes):
        with atomic.written_beside(request.out / f"{number}.npy") as file:
            np.save(file, whole)
    sys.stdout.write(printable_lines(f"{request.out}: {counted(len(wholes), 'array')}, 0.npy and so on\n"))


def _beginning(prompt: str, section: ArrayConfig) -> np.ndarray:
    path, rest = Path(prompt), tuple(section.shape[1:])
    try:
        values = finite(numbers(_content(path)).astype(np.float32), section.nan)
    except ValueError as error:
        raise ValueError(str(error) if prompt in str(error) else f"{path}: {error}") from error
    if values.ndim != len(section.shape) or values.shape[1:] != rest:
        wanted = ", ".join(["any", *map(str, rest)])
        raise ValueError(f"{path}: array of shape {values.shape}; expected ({wanted})")
    return np.ascontiguousarray(values)


def _continued(
    loaded: LoadedRun,
    known: Tensor,
    num_places: int,
    number: int,
    num_prompts: int,
    request: Request,
    progress: Tell,
    never: Sequence[int] = (),
) -> Tensor:
    assert isinstance(loaded.network, Perceiver)
    device = next(loaded.network.parameters()).device
    return continued(
        loaded.network,
        known.to(device),
        num_places,
        sampling=request.sampling,
        # Each prompt draws for itself: what one is continued with does not depend on the others.
        seed=request.seed + number,
        never=never,
        tell=lambda done: progress(number * num_places + done, num_prompts * num_places),
    )
