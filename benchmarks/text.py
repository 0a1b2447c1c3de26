"""Does a Perceiver AR predict a small text better than a model of five bytes that was trained on the same bytes?

    python benchmarks/text.py FOLDER [--steps 400] [--json OUT.json]

Trains benchmarks/next_token.yaml by `perceiver train` in FOLDER, a new one: the short licences of the installed
packages (MIT, BSD and the like), each text once. A fifth is kept for the test. The tokenizer is trained on the training
bytes, too. Both models answer every byte of the test: the network's bits are those of all tokens, divided by the bytes,
and a token reads at least half a window of tokens before it, where there are so many. The other model is a 5-gram whose
shorter grams are mixed in by Kneser and Ney's rule, or by Witten and Bell's.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import distributions
from math import log, log2
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional

from benchmarks.arguments import at_least
from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from launch.answers.loaded_run import load_run
from model.perceiver import Perceiver

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / "benchmarks" / "next_token.yaml"
VOCABULARY, ORDER, DISCOUNT = 1024, 5, 0.75
LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")
PIECE, LONGEST = 4_096, 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=at_least(1), default=400)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    train, test = licences()
    arguments.folder.mkdir(parents=True)
    tokenizer = tokenizer_of(train, arguments.folder / "tokens.json")
    # By letters and not by bytes, of which a part is no text.
    letters = train.decode()
    pieces = {start: letters[start : start + PIECE].encode() for start in range(0, len(letters), PIECE // 2)}
    rows = [Row(start, (Literal(piece, "txt"),)) for start, piece in pieces.items()]
    build_table(rows, arguments.folder / "shards", label_names=())
    seconds = trained(arguments.folder, arguments.steps)
    bits, num_bytes = network_bits(arguments.folder / "run", tokenizer, test)
    found = {
        "train_bytes": len(train),
        "test_bytes": num_bytes,
        "steps": arguments.steps,
        "cpu_seconds": seconds,
        "perceiver_ar": bits / num_bytes,
        "5-gram, Kneser-Ney": ngram_bits(train, test, kneser_ney=True) / num_bytes,
        "5-gram, Witten-Bell": ngram_bits(train, test, kneser_ney=False) / num_bytes,
    }
    for name, value in found.items():
        sys.stdout.write(f"{name:<20} {value:.3f}\n" if isinstance(value, float) else f"{name:<20} {value}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(found) + "\n")


def licences() -> tuple[bytes, bytes]:
    """Return the licences of the installed packages for training and for the test: each text once, by its hash."""
    texts: dict[str, bytes] = {}
    for distribution in distributions():
        for path in distribution.files or ():
            place = Path(str(path.locate()))
            if path.name.upper().split(".")[0] in LICENCES and place.is_file():
                content = place.read_bytes()
                if len(content) <= LONGEST and is_text(content):
                    texts[hashlib.sha256(content).hexdigest()] = content
    ordered = [texts[key] for key in sorted(texts)]
    return (
        b"\n\n".join(text for number, text in enumerate(ordered) if number % 5),
        b"\n\n".join(text for number, text in enumerate(ordered) if not number % 5),
    )


def is_text(content: bytes) -> bool:
    """Return whether the content is UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def tokenizer_of(text: bytes, path: Path) -> Tokenizer:
    """Return a tokenizer of byte pairs that was trained on a text, and write it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text.decode()], trainer)
    tokenizer.save(str(path))
    return tokenizer


def trained(folder: Path, steps: int) -> float:
    """Train the run and return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [
        f"data.shards={folder}/shards",
        f"data.inputs.text.tokenizer={folder}/tokens.json",
        f"train.steps={steps}",
    ]
    command = [sys.executable, "-m", "launch", "train", str(CONFIG), *words, "--run", str(folder / "run")]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def network_bits(run: Path, tokenizer: Tokenizer, text: bytes) -> tuple[float, int]:
    """Return the bits of all tokens of a text, and its bytes."""
    network = load_run(run).network
    assert isinstance(network, Perceiver)
    config = network.config
    ids = torch.tensor(tokenizer.encode(text.decode()).ids)
    bits = 0.0
    for start, stop, first in windows(len(ids), config.num_tokens, config.num_latents):
        with torch.no_grad():
            answer = network({config.stream: ids[None, start:stop]})[config.stream][0]
        num_new = stop - first
        losses = functional.cross_entropy(answer[-num_new:].double(), ids[first:stop], reduction="sum")
        bits += losses.item() / log(2)
    return bits, len(text)


def windows(length: int, num_places: int, num_latents: int) -> Iterator[tuple[int, int, int]]:
    """Yield windows (start, stop, first): the ids from `first` to `stop` are answered, each once."""
    for first in range(0, length, num_latents):
        stop = min(first + num_latents, length)
        yield max(stop - num_places, 0), stop, first


def ngram_bits(train: bytes, test: bytes, *, kneser_ney: bool) -> float:
    """Return the bits of a text by a 5-gram, interpolated with the shorter ones."""
    counts = [Counter(train[at : at + order] for at in range(len(train) - order + 1)) for order in range(ORDER + 1)]
    if kneser_ney:
        # Of shorter ones the number of bytes before them counts, not how often they are there.
        for order in range(ORDER - 1, 0, -1):
            counts[order] = Counter(gram[1:] for gram in counts[order + 1])
    totals: list[Counter[bytes]] = [Counter() for _ in counts]
    kinds: list[Counter[bytes]] = [Counter() for _ in counts]
    for order in range(1, ORDER + 1):
        for gram, count in counts[order].items():
            totals[order][gram[:-1]] += count
            kinds[order][gram[:-1]] += 1

    def probability(gram: bytes) -> float:
        if not gram:
            return 1 / 256
        shorter, order, before = probability(gram[1:]), len(gram), gram[:-1]
        total, kind = totals[order][before], kinds[order][before]
        if not total:
            return shorter
        if kneser_ney:
            return (max(counts[order][gram] - DISCOUNT, 0) + DISCOUNT * kind * shorter) / total
        return (counts[order][gram] + kind * shorter) / (total + kind)

    return -sum(log2(probability(test[max(end - ORDER, 0) : end])) for end in range(1, len(test) + 1))


if __name__ == "__main__":
    main()
