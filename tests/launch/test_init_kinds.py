"""`perceiver init` for samples that fit no usual suffix: a configuration that trains, or one sentence."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from configs.run import RunConfig, load
from data_shards.building import adoption
from data_shards.format.annotations import WHOLE, Records
from data_shards.loading.shard_loader import ShardLoader
from launch.planning.starting_config import starting_config
from model.perceiver import Perceiver
from trainer.tasks.objective import objective

RNG = np.random.default_rng(0)
Sample = dict[str, bytes]
COUNT = 8


def picture(kind: str, shape: tuple[int, ...] = (8, 12, 3)) -> bytes:
    content = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape).astype(np.uint8)).save(content, kind)
    return content.getvalue()


def array(values: object) -> bytes:
    content = io.BytesIO()
    np.save(content, np.asarray(values, np.float32))
    return content.getvalue()


def archive(number: int) -> bytes:
    content = io.BytesIO()
    np.savez(content, eeg=RNG.normal(size=(16, 4)).astype(np.float32), field=np.ones((4, 4, 2), np.float32) * number)
    return content.getvalue()


def label(number: int) -> Sample:
    return {"cls": str(number % 2).encode()}


def record(**fields: object) -> Sample:
    return {"json": json.dumps(fields).encode()}


def adopted(folder: Path, make: Callable[[int], Sample], records: Records | None, split: str = "train") -> Path:
    (folder / split).mkdir(parents=True)
    with tarfile.open(folder / split / "0.tar", "w") as tar:
        for number in range(COUNT):
            for suffix, content in make(number).items():
                header = tarfile.TarInfo(f"{number:04d}.{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    adoption.index(folder, records=records)
    return folder


def trained_one_step(folder: Path, tokenizer: str = "") -> RunConfig:
    """Return the configuration that is written, after the loss of its first batch has been trained on."""
    text = starting_config(folder, tokenizer=tokenizer)
    (folder.parent / "run.yaml").write_text(text)
    config = load(folder.parent / "run.yaml")
    network, goal = Perceiver(config.model, seed=0), objective(config.model.answers())
    with ShardLoader(config.data, global_batch=config.train.global_batch, seed=0) as loader:
        batch = next(iter(loader))
        loss = goal.loss(goal.sums(network, batch), goal.counts(batch))
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    return config


KINDS: dict[str, tuple[Callable[[int], Sample], dict[str, object], set[str]]] = {
    "a text in the record": (
        lambda n: {"jpg": picture("jpeg"), **record(caption=f"a photo of {n} cats", url=f"http://a/{n}", width=n)},
        {"caption": "json.caption", "image": ()},
        {"caption"},
    ),
    "a text in the record alone": (
        lambda n: record(caption=f"a photo of {n} cats", url=f"http://a/{n}", width=n),
        {"caption": "json.caption"},
        {"caption"},
    ),
    "two pictures a sample": (
        lambda n: {"jpg": picture("jpeg"), "png": picture("png", (8, 12)), **label(n)},
        {"jpg": "jpg", "png": "png"},
        {"label"},
    ),
    "one camera in two formats": (
        lambda n: {"left.jpg": picture("jpeg")} if n % 2 else {"left.png": picture("png")},
        {"left": ("left.jpg", "left.png")},
        {"left"},
    ),
    "frames without motion": (
        lambda n: {"first.png": picture("png"), "second.png": picture("png"), **label(n)},
        {"first": "first.png", "second": "second.png"},
        {"label"},
    ),
    "an archive of several arrays": (
        lambda n: {"npz": archive(n), **label(n)},
        {"eeg": "npz/eeg", "field": "npz/field"},
        {"label"},
    ),
    "two texts": (
        lambda n: {"en.txt": b"some words %d" % n, "de.txt": b"einige Worte %d" % n},
        {"de": "de.txt", "en": "en.txt"},
        {"de"},
    ),
    "names that no run takes": (
        lambda n: {"a+b.png": picture("png"), "all.png": picture("png"), **label(n)},
        {"a_b": "a+b.png", "all_": "all.png"},
        {"label"},
    ),
    "one class": (lambda _: {"jpg": picture("jpeg"), "cls": b"0"}, {"image": ()}, {"image"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_kind_are_read_and_trained_on(tmp_path: Path, kind: str) -> None:
    make, members, outputs = KINDS[kind]
    config = trained_one_step(adopted(tmp_path / "shards", make, None))
    assert {name: section.members for name, section in config.data.inputs.items()} == members
    assert set(config.model.outputs) == outputs


def test_numbers_of_the_records_are_values_under_names_that_a_run_takes(tmp_path: Path) -> None:
    folder = adopted(
        tmp_path / "shards",
        lambda n: {"png": picture("png"), **record(**{"price (EUR)": 1.5 * n, "place": [n, 2.0], "name": "x"})},
        Records(values=WHOLE),
    )
    outputs = trained_one_step(folder).model.outputs
    assert {name: (of.target, of.num_values) for name, of in outputs.items()} == {
        "price _EUR_": ("price (EUR)", 1),
        "place": ("", 2),
    }


def test_numbers_that_are_no_targets_yet_are_named_with_what_makes_them_targets(tmp_path: Path) -> None:
    def make(number: int) -> Sample:
        return {
            "png": picture("png"),
            **record(price=number, is_new=True, url="http://a", title="two words", none=None),
        }

    lines = starting_config(adopted(tmp_path / "shards", make, None)).splitlines()
    assert [line for line in lines if "of the records" in line] == [
        "# numbers of the records, price: no targets; `perceiver data index FOLDER --values-from .` makes them values",
        "# fields of the records, is_new, url: not read",
    ]


def test_texts_are_read_by_a_tokenizer_that_is_named(tmp_path: Path) -> None:
    words = ["[PAD]", "[MASK]", "some", "words", *map(str, range(COUNT))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    folder = adopted(tmp_path / "shards", lambda n: {"txt": b"some words %d" % n}, None)
    section = trained_one_step(folder, str(tmp_path / "tokenizer.json")).data.inputs["text"]
    assert (section.num_tokens, section.vocabulary) == (16, len(words))
    pictures = adopted(tmp_path / "pictures", lambda _: {"png": picture("png")}, None)
    with pytest.raises(ValueError, match=r"--tokenizer .*tokenizer.json: .*pictures has no text"):
        starting_config(pictures, tokenizer=str(tmp_path / "tokenizer.json"))


REFUSED: dict[str, tuple[Callable[[int], Sample], Records | None, str, str]] = {
    "no split to train on": (label, None, "test", "has no split train, .* it has test; build the shards"),
    "a class without samples": (lambda n: {"cls": b"02"[n % 2 : n % 2 + 1]}, None, "train", "class '1' has no sample"),
    "a value with the name of an input": (
        lambda n: record(image=n),
        Records(values=WHOLE),
        "train",
        "data.values has the name 'image', which is taken; rename it",
    ),
}


@pytest.mark.parametrize("slip", REFUSED)
def test_what_no_run_would_take_is_refused_with_its_reason(tmp_path: Path, slip: str) -> None:
    make, records, split, expected = REFUSED[slip]
    folder = adopted(tmp_path / "shards", lambda n: {"jpg": picture("jpeg"), **make(n)}, records, split)
    with pytest.raises(ValueError, match=expected):
        starting_config(folder)


def test_records_without_a_text_of_words_are_named_where_nothing_else_is_there(tmp_path: Path) -> None:
    folder = adopted(tmp_path / "shards", lambda n: record(url=f"http://a/{n}", width=n), None)
    with pytest.raises(
        ValueError, match=r"nothing that a network reads; numbers of the records, width: .* url: not read"
    ):
        starting_config(folder)


def test_an_array_without_a_single_number_is_left_out(tmp_path: Path) -> None:
    def make(number: int) -> Sample:
        return {"png": picture("png"), "y.npy": array([[np.nan] * 4] * 16), **label(number)}

    text = starting_config(adopted(tmp_path / "shards", make, None))
    assert "# y is left out: array: not one finite value" in text


def test_single_numbers_are_no_arrays(tmp_path: Path) -> None:
    folder = adopted(tmp_path / "shards", lambda n: {"y.npy": array(n)}, None)
    with pytest.raises(ValueError, match="y is left out: array: single numbers, which are no arrays"):
        starting_config(folder)
