"""Pictures of masked modelling show what was hidden, what was answered there, and what is true."""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
from test_pictures import drawn
from test_predict import MODEL, MakeRun, make_run, picture

from data_shards.loading.batch import Batch
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transforms.text import MASK
from launch.pictures import drawing
from launch.pictures.texts import bracketed, filled_in
from launch.run.trained import evaluation
from trainer.sinks.page import Story, page

__all__ = ["drawn", "make_run"]
SMALL = MODEL.replace("global_batch: 8", "global_batch: 4")
MASKED = f"""
data: {{inputs: {{photo: {{modality: image, members: [png], height: 8, width: 8}}}}, lanes: 2, window: 8}}
model:
  inputs: {{photo: {{patch: 4}}}}
  mask_tokens: true
  outputs: {{photo: {{kind: masked, positions: {{num_bands: 2}}}}}}{SMALL}"""


def test_an_evaluation_draws_hidden_patches_grey_their_answers_and_the_truth(
    make_run: MakeRun, tmp_path: Path, drawn: list[Figure]
) -> None:
    rows = [{"image": picture(tmp_path / f"{n}.png", n), "split": "test" if n < 3 else "train"} for n in range(11)]
    evaluation.main(make_run(MASKED, rows), as_json=True)
    (figure,) = [each for each in drawn if [axes.get_title() for axes in each.axes[::8]] == ["shown", "answer", "true"]]
    for shown, answer, true in zip(*(figure.axes[start : start + 8] for start in (0, 8, 16)), strict=True):
        if not true.images:
            continue
        seen, found, truth = (np.asarray(axes.images[0].get_array()) for axes in (shown, answer, true))
        hidden = np.isclose(seen, 0.6).all(axis=-1)
        # Three of the four patches.
        assert hidden.sum() == 48
        np.testing.assert_allclose(seen[~hidden], truth[~hidden])
        np.testing.assert_allclose(found[~hidden], truth[~hidden])
        assert not np.allclose(found[hidden], truth[hidden])
    assert sum(bool(axes.images) for axes in figure.axes) == 9


def test_hidden_stretches_of_a_curve_are_gaps_on_grey_ground() -> None:
    truth = np.arange(16, dtype=np.float32).reshape(1, 8, 2)
    seen = truth.copy()
    seen[0, 2:5] = np.nan
    figure = drawing.samples(drawing.rows_of(truth, truth + 1, seen, 0), is_unit=False)
    for axes in (figure.axes[row * 8] for row in range(3)):
        (ground,) = axes.patches
        assert ground.get_facecolor() == (0.6, 0.6, 0.6, 0.5)
        assert axes.get_xlim() == (-0.5, 7.5)
        # The range of the last row, and a twentieth of it above and below.
        assert axes.get_ylim() == (-0.75, 15.75)
        assert (ground.get_x(), ground.get_width()) == (1.5, 3.0)
        assert axes.get_ylim() == figure.axes[16].get_ylim()
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).tolist() == [False, False, True, True, True, *[False] * 3]
    assert not any(axes.lines for axes in figure.axes[1:8])


def test_patches_of_a_recording_are_one_curve() -> None:
    waves = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    rows = drawing.rows_of(waves, waves, None, num_entries=16)
    assert [values.shape for values in rows.values()] == [(1, 16, 1)] * 2
    assert rows["input"].ravel().tolist() == list(range(16))
    # Pictures have their places already.
    whole = drawing.rows_of(waves.reshape(1, 2, 2, 4), waves.reshape(1, 2, 2, 4), None, num_entries=2)
    assert [values.shape for values in whole.values()] == [(1, 2, 2, 4)] * 2


def test_what_is_hidden_in_stretches_is_so_many_stretches() -> None:
    assert list(drawing._runs(np.array([1, 0, 1, 1, 0, 0, 1], bool))) == [(0, 1), (2, 4), (6, 7)]
    assert list(drawing._runs(np.zeros(3, bool))) == []


def test_hidden_words_stand_in_brackets(tokenizers: dict[str, Path]) -> None:
    section = TextConfig(num_bytes=16)
    ids = np.frombuffer(b"the dog runs", np.uint8).astype(np.int16) + 6
    hidden = np.zeros(12, bool)
    hidden[4:7] = True
    assert bracketed(section, ids, hidden) == "the [dog] runs"
    assert bracketed(section, np.where(hidden, MASK, ids), hidden) == "the [___] runs"
    assert bracketed(section, ids, ~hidden) == "[the] dog [runs]"
    assert bracketed(section, ids, np.zeros(12, bool)) == "the dog runs"
    tokens = TextConfig(tokenizer=str(tokenizers["unigram"]), num_tokens=16)
    found, words = tokens.tokens.ids_and_words("the dog runs")
    for number, expected in enumerate(("[the] dog runs", "the [dog] runs", "the dog [runs]")):
        assert bracketed(tokens, np.array(found), words == number) == expected


def test_of_no_text_nothing_is_shown_and_a_letter_may_be_hidden_by_half() -> None:
    section, letter = TextConfig(num_bytes=16), np.frombuffer("ä".encode(), np.uint8).astype(np.int16) + 6
    assert bracketed(section, letter[:0], np.zeros(0, bool)) == ""
    assert bracketed(section, letter, np.array([False, True])) == "\ufffd[\ufffd]"


def test_every_text_is_told_as_it_was_shown_as_it_is_and_as_answered(tokenizers: dict[str, Path]) -> None:
    section = TextConfig(tokenizer=str(tokenizers["unigram"]), num_tokens=8)
    ids, _ = section.tokens.ids_and_words("the dog runs")
    numbers = torch.tensor(ids)
    # Five texts: one without a key, an empty one, and one whose second word is the id 0.
    true, shown = numbers.repeat(5, 1), numbers.repeat(5, 1)
    guesses, targets = torch.full_like(true, 4), torch.zeros_like(true)
    shown[:, 1] = 2
    targets[:, 1] = true[:, 1]
    targets[4, 1] = -1
    keys = ("a", "", "empty", "b\x1b", "zero")
    batch = Batch(
        arrays={"text": shown},
        lengths={"text": torch.tensor([len(ids), len(ids), 0, len(ids), len(ids)])},
        labels=torch.zeros(5, dtype=torch.int64),
        weights=torch.ones(5),
        keys=keys,
        targets={"text": targets},
    )
    found = list(filled_in(section, "text", batch, guesses))
    hidden = np.arange(len(ids)) == 1
    answer = np.where(hidden, guesses[0].numpy(), np.array(ids))
    rows = [
        f"  shown:  {bracketed(section, shown[0].numpy(), hidden)}",
        "  true:   the dog runs",
        f"  answer: {bracketed(section, answer, hidden)}",
    ]
    assert found[:8] == ["a", *rows, r"b\x1b", *rows]
    zero = section.words(np.where(hidden, 0, np.array(ids)))
    assert zero not in ("the dog runs", section.words(np.where(hidden, 1, np.array(ids))))
    assert found[8:] == ["zero", rows[0], f"  true:   {zero}", rows[2]]


def test_the_report_has_the_filled_in_texts(tmp_path: Path) -> None:
    (tmp_path / "filled_in_words.txt").write_text("a\n  answer: the [<b>] runs\n")
    told = page(Story("run", "", [], [], [], [tmp_path / "filled_in_words.txt"]))
    assert "the [&lt;b&gt;] runs" in told
    assert "filled_in_words" in told
