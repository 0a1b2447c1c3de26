"""What a user is given of an answer: the cells of a row, and the rows of every kind of answer."""

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from math import log2, nan
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_shards.loading.batch import Batch
from data_shards.modalities.encoding import flo, motion_picture, png
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transform_config import MaskingConfig
from data_shards.modalities.transforms.text import mask_id
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput
from trainer.tasks.answer import AnsweredFile, Row, Telling, numbers, ranked
from trainer.tasks.objective import objective
from trainer.tasks.task import Task

SEEN = Telling(with_truth=True)


def batch_of(num_samples: int, arrays: Mapping[str, Tensor] | None = None, **fields: Any) -> Batch:  # noqa: ANN401  # any field
    arrays = dict(arrays or {"image": torch.zeros(num_samples, 1, 1, 3)})
    plain = Batch(
        arrays=arrays,
        lengths={name: torch.full((num_samples,), array.shape[1]) for name, array in arrays.items()},
        labels=torch.full((num_samples,), -1),
        weights=torch.ones(num_samples),
        keys=tuple("abcdefgh"[:num_samples]),
    )
    return replace(plain, **fields)


def task_of(output: Output, **inputs: Any) -> Task[Any]:  # noqa: ANN401  # of any modality
    """Return the task of an output that is called "said"."""
    return objective({"said": output.named("said", PerceiverConfig(inputs=inputs)) if inputs else output}).tasks["said"]


def plain(row: Row) -> dict[str, Any]:
    """Return a row in which a file is its suffix and its content."""
    return {
        column: (cell.suffix, cell.encode(cell.array)) if isinstance(cell, AnsweredFile) else cell
        for column, cell in row.items()
    }


def npy(array: Any) -> tuple[str, bytes]:  # noqa: ANN401  # whatever numpy makes an array of
    content = BytesIO()
    np.save(content, np.asarray(array, np.float32))
    return "npy", content.getvalue()


@pytest.mark.parametrize(
    ("values", "cell"),
    [(2.0, 2.0), ([2.0], 2.0), ([2.0, 3.0], [2.0, 3.0]), ([[1.0], [2.0]], [1.0, 2.0]), ([], [])],
)
def test_one_number_is_a_number_and_several_are_a_list(values: object, cell: object) -> None:
    assert numbers(np.array(values)) == cell


def test_classes_are_ranked_by_their_logits_and_of_equal_ones_the_first_is_the_first() -> None:
    telling = Telling(class_names={"digit": ["zero", "one"]}, top=3)
    # The probabilities of the last two are rounded to the same number.
    logits, probabilities = np.array([1.0, 3.0, 4.0, 3.0]), np.array([0.1, 0.2, 0.5, 0.2])
    assert ranked("said", telling, "digit", logits, probabilities) == {
        "said": "2",
        "said_probability": 0.5,
        "said_2": "one",
        "said_2_probability": 0.2,
        "said_3": "3",
        "said_3_probability": 0.2,
    }
    assert ranked("said", Telling(), "digit", logits, probabilities) == {"said": "2", "said_probability": 0.5}
    # As many as no sort leaves in their order by chance.
    thirds = np.arange(500, dtype=np.float32) % 3
    equal = ranked("said", Telling(top=500), "", thirds, np.ones(500))
    in_order = [str(number) for third in (2, 1, 0) for number in range(third, 500, 3)]
    assert [equal[f"said_{place}" if place > 1 else "said"] for place in range(1, 501)] == in_order


def test_of_an_answer_that_is_no_number_no_class_is_the_likeliest() -> None:
    row = ranked("said", Telling(), "", np.array([nan, 1.0]), np.array([0.25, 0.75]))
    assert (row["said"], list(row)) == (None, ["said", "said_probability"])


def test_what_is_told_of_nothing_else_is_one_class_by_its_number() -> None:
    assert Telling() == Telling(inputs={}, class_names={}, top=1, with_truth=False, true_names=())
    telling = Telling(class_names={"digit": ["zero", "one"]}, true_names=[{}, {"digit": ["nil", "un"]}])
    assert [telling.class_name("digit", number) for number in range(3)] == ["zero", "one", "2"]
    assert telling.class_name("", 0) == "0"
    assert [telling.true_class("digit", place, 1) for place in range(2)] == ["1", "un"]


def test_an_array_is_a_file_as_an_input_of_its_section_is() -> None:
    array = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 2, 3)
    found = plain({"drawn": AnsweredFile.of_input(array, ImageConfig()), "array": AnsweredFile.of_input(array, None)})
    assert found == {"drawn": ("png", png(array)), "array": npy(array)}


def test_a_row_of_a_label_has_its_likeliest_classes_and_the_true_one() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    likely, certain = (float(torch.tensor(logit).sigmoid()) for logit in (1.0, 2.0))
    telling = replace(SEEN, class_names={"": ["a", "b"], "digit": ["zero", "one"]}, true_names=[{"": "AB"}, {}, {}])
    found = task_of(LabelOutput(num_classes=2)).rows(logits, batch_of(3, labels=torch.tensor([1, 0, -1])), telling)
    assert found == [
        {"said": "b", "said_probability": pytest.approx(likely), "said_true": "B"},
        {"said": "a", "said_probability": pytest.approx(certain), "said_true": "0"},
        {"said": "a", "said_probability": 0.5, "said_true": None},
    ]
    named = task_of(LabelOutput(num_classes=2, target="digit"))
    telling = replace(telling, true_names=[{"digit": ["null", "eins"]}] * 3)
    with_truth = batch_of(3, targets={"digit": torch.tensor([0, -1, 1])})
    rows = named.rows(logits, with_truth, telling)
    assert [(row["said"], row["said_true"]) for row in rows] == [("one", "null"), ("zero", None), ("zero", "eins")]
    for given, told in ((batch_of(3), telling), (with_truth, replace(telling, with_truth=False))):
        assert [list(row) for row in named.rows(logits, given, told)] == [["said", "said_probability"]] * 3
    assert list(task_of(LabelOutput(num_classes=2)).rows(logits, batch_of(3), Telling())[0]) == list(rows[0])[:2]


@pytest.mark.parametrize(("loss", "chosen"), [("sigmoid", [["a", "c"], [], []]), ("softmax", [["c"], [], []])])
def test_a_row_of_several_labels_has_those_above_one_half_the_likeliest_and_the_true_ones(
    loss: Any,  # noqa: ANN401  # a literal
    chosen: list[list[str]],
) -> None:
    # Of the last the softmax of two classes is one half.
    logits = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0], [-999.0, 0.0, 0.0]])
    probabilities = logits.sigmoid() if loss == "sigmoid" else logits.softmax(dim=1)
    task = task_of(LabelsOutput(num_classes=3, loss=loss))
    telling = replace(SEEN, class_names={"": ["a", "b", "c"]}, true_names=[{"": "xyz"}, {}, {}], top=2)
    truths = batch_of(3, targets={"label": torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 0, 0]])})
    expected = [
        {
            "said": names,
            "said_likely": first,
            "said_likely_probability": pytest.approx(float(of_classes[places[0]])),
            "said_likely_2": second,
            "said_likely_2_probability": pytest.approx(float(of_classes[places[1]])),
            "said_true": true,
        }
        for names, of_classes, (first, second), places, true in zip(
            chosen,
            probabilities,
            (("c", "a"), ("a", "b"), ("b", "c")),
            ((2, 0), (0, 1), (1, 2)),
            (["x", "z"], [], []),
            strict=True,
        )
    ]
    assert task.rows(logits, truths, telling) == expected
    for given, told in ((batch_of(3), telling), (truths, replace(telling, with_truth=False))):
        assert not any("said_true" in row for row in task.rows(logits, given, told))


def test_a_row_of_numbers_has_the_true_ones_where_they_are_known() -> None:
    task = task_of(ValueOutput(target="age", num_values=2))
    answer, truths = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.5, 2.5], [3.5, nan]])
    with_truth = batch_of(2, targets={"age": truths})
    first, second = task.rows(answer, with_truth, SEEN)
    assert first == {"said": [1.0, 2.0], "said_true": [1.5, 2.5]}
    assert second == {"said": [3.0, 4.0], "said_true": [3.5, pytest.approx(nan, nan_ok=True)]}
    for given, told in ((batch_of(2), SEEN), (with_truth, Telling())):
        assert task.rows(answer, given, told) == [{"said": [1.0, 2.0]}, {"said": [3.0, 4.0]}]
    assert task.rows(torch.tensor([5.0]), batch_of(1), Telling()) == [{"said": 5.0}]
    # Of a plug-in's task: many axes are a file.
    [row] = task.rows(torch.ones(1, 2, 2), batch_of(1), Telling())
    assert plain(row) == {"said": npy([[1, 1], [1, 1]])}


def test_a_row_of_a_pair_has_the_vector_of_each_input_that_the_sample_has() -> None:
    task = task_of(EmbeddingOutput(pair=("first", "second"), width=2))
    batch = batch_of(3, lengths={"first": torch.tensor([1, 0, 2]), "second": torch.tensor([1, 1, 0])})
    answer = torch.arange(12.0).view(2, 3, 2)
    assert task.rows(answer, batch, Telling()) == [
        {"said_first": [0.0, 1.0], "said_second": [6.0, 7.0]},
        {"said_first": None, "said_second": [8.0, 9.0]},
        {"said_first": [4.0, 5.0], "said_second": None},
    ]


def test_a_row_of_motion_has_it_as_a_file_and_as_a_picture_and_the_true_one_where_it_is_known() -> None:
    task = task_of(FlowOutput(target="flow"))
    motion = torch.arange(16.0).view(2, 2, 2, 2)
    truths = torch.full((2, 2, 2, 2), nan)
    truths[0, 0, 0, 0] = 1.0
    batch = batch_of(2, targets={"flow": truths})
    first, second = map(plain, task.rows(motion, batch, SEEN))
    said = {"said": ("flo", flo(motion[0].numpy())), "said_picture": ("png", motion_picture(motion[0].numpy()))}
    assert first == {**said, "said_true": ("flo", flo(truths[0].numpy()))}
    assert (second["said_true"], second["said"]) == (None, ("flo", flo(motion[1].numpy())))
    assert plain(task.rows(motion, batch, Telling())[0]) == said


def test_a_row_of_a_text_has_it_filled_in_as_it_was_shown_and_as_it_is() -> None:
    section = TextConfig(num_bytes=6, masking=MaskingConfig())
    hidden = mask_id(section)
    a, b, c, d = (6 + ord(letter) for letter in "abcd")
    shown = torch.tensor([[a, hidden, c, hidden, 0, 0], [a, b, 0, 0, 0, 0]], dtype=torch.int16)
    truths = torch.tensor([[0, b, 0, c, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.int16)
    batch = batch_of(2, {"text": shown}, lengths={"text": torch.tensor([4, 2])}, targets={"text": truths})
    guesses = torch.tensor([[d, d, d, c, d, d], [d] * 6])
    answer = torch.nn.functional.one_hot(guesses, 262).float()
    task, telling = task_of(TextOutput(target="text")), replace(SEEN, inputs={"text": section})
    words = section.words(shown[0, :4].numpy())
    assert task.rows(answer, batch, telling) == [
        {"said": "adcc", "said_shown": words, "said_true": "abcc"},
        {"said": "ab", "said_shown": "ab", "said_true": "ab"},
    ]
    row = task.rows(answer, batch, replace(telling, with_truth=False))[0]
    assert row == {"said": "adcc", "said_shown": words}


def test_a_row_of_a_reconstruction_is_a_file_of_the_input() -> None:
    task = task_of(GridOutput(target="image", shape=(2, 2), num_channels=3))
    answer = torch.rand(2, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    batch = batch_of(2, {"image": torch.zeros(2, 2, 2, 3, dtype=torch.uint8)})
    section = ImageConfig(height=2, width=2)
    assert [plain(row) for row in task.rows(answer, batch, Telling(inputs={"image": section}))] == [
        {"said": ("png", png(drawn.numpy()))} for drawn in answer
    ]
    assert [plain(row) for row in task.rows(answer, batch, Telling())] == [{"said": npy(drawn)} for drawn in answer]


def test_a_row_of_a_picture_of_which_a_part_was_hidden_is_that_picture_with_its_answer_there() -> None:
    task = task_of(MaskedOutput(target="image", fraction=0.5), image=ImageInput(height=4, width=4, patch=2))
    pixels = torch.full((2, 4, 4, 3), 255, dtype=torch.uint8)
    batch = batch_of(2, {"image": pixels}, lengths={"image": torch.tensor([4, 0])})
    answer = torch.full((2, 4, 4, 3), 0.25)
    hidden = task.hides(batch, every=True)["image"][0].view(2, 2)
    expected = torch.where(hidden.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)[..., None], 0.25, 1.0)
    section = ImageConfig(height=4, width=4)
    first, second = task.rows(answer, batch, Telling(inputs={"image": section}))
    assert plain(first) == {"said": ("png", png(expected.expand(4, 4, 3).numpy()))}
    assert second == {"said": None}, "the sample lacks the picture"
    seen = task.seen(batch)
    assert seen is not None
    assert torch.equal(seen[0].isnan(), (expected < 1).expand(4, 4, 3))
    truth, drawn = task.compared(answer, batch)
    assert torch.equal(truth, torch.ones(2, 4, 4, 3))
    assert torch.equal(drawn[0], expected.expand(4, 4, 3))


def test_a_row_of_a_stream_has_the_mean_of_its_bits() -> None:
    config = PerceiverConfig(
        inputs={"text": TextInput(max_tokens=4, embedding_width=8)},
        outputs={"said": AutoregressiveOutput(target="text")},
        num_latents=2,
        latent_width=8,
    )
    task = objective(config.answers()).tasks["said"]
    ids = torch.tensor([[7, 8, 9, 10], [7, 8, 9, 10]], dtype=torch.int16)
    batch = batch_of(2, {"text": ids}, lengths={"text": torch.tensor([4, 1])})
    answer = torch.zeros(2, 2, 262)
    answer[0, 0, 9] = 3.0
    sharp = log2(torch.tensor(3.0).exp().item() + 261) - 3 / torch.tensor(2.0).log().item()
    assert task.rows(answer, batch, Telling()) == [
        {"said_bits_per_byte": pytest.approx((sharp + log2(262)) / 2, rel=1e-5)},
        {"said_bits_per_byte": pytest.approx(log2(262), rel=1e-5)},
    ]
