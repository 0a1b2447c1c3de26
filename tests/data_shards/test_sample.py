import io

import numpy as np
import pytest
from PIL import Image

from data_shards.config import DataConfig
from data_shards.loading.sample import prepare
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transform_config import MaskingConfig

CONFIG = DataConfig(
    inputs={"image": ImageConfig(height=4, width=4, shift_pixels=1), "text": TextConfig(num_bytes=6)},
    modality_dropout={"image": 0.5, "text": 0.5},
)


def png(value: int = 200) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


MEMBERS = {"png": png(), "txt": b"four", "cls": b"4", "json": b'{"weight": 0.25}', "wav": b"not configured"}


def test_a_sample_has_the_shapes_of_the_config_and_its_label() -> None:
    sample = prepare(MEMBERS, CONFIG)
    assert sample.arrays.keys() == {"image", "text"}
    np.testing.assert_array_equal(sample.arrays["image"], np.full((4, 4, 3), 200))
    assert sample.arrays["text"].tolist() == [ord(letter) + 6 for letter in "four"] + [0, 0]
    assert sample.lengths == {"image": 4, "text": 4}
    assert (sample.label, sample.weight) == (4, 0.25)


def test_a_sample_may_have_several_labels() -> None:
    assert prepare({"txt": b"x", "json": b'{"labels": [3, 1]}'}, CONFIG).labels == (3, 1)
    assert prepare({"txt": b"x", "json": b'["of", "others"]'}, CONFIG).labels == ()


def test_hidden_words_are_the_target() -> None:
    config = DataConfig(inputs={"text": TextConfig(num_bytes=8, masking=MaskingConfig(1.0))})
    sample = prepare({"txt": b"ab c"}, config, np.random.default_rng(0))
    assert sample.arrays["text"].tolist() == [3, 3, ord(" ") + 6, 3, 0, 0, 0, 0]
    assert sample.targets["text"].tolist() == [ord("a") + 6, ord("b") + 6, 0, ord("c") + 6, 0, 0, 0, 0]


def test_a_sample_without_label_and_weight_has_none() -> None:
    sample = prepare({"txt": b"x"}, CONFIG)
    assert (sample.label, sample.weight) == (-1, 1.0)
    assert sample.arrays.keys() == {"text"}


def test_equal_generators_give_equal_samples_and_others_differ() -> None:
    def draw(seed: int) -> list[tuple[list[str], bytes]]:
        rng = np.random.default_rng(seed)
        samples = [prepare(MEMBERS, CONFIG, rng) for _ in range(20)]
        return [(sorted(s.arrays), b"".join(s.arrays[name].tobytes() for name in sorted(s.arrays))) for s in samples]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_hidden_modalities_follow_their_probabilities_and_one_always_stays() -> None:
    rng = np.random.default_rng(0)
    shown = [prepare(MEMBERS, CONFIG, rng).arrays.keys() for _ in range(2000)]
    counts = {name: sum(keys == {name} for keys in shown) for name in ("image", "text")}
    # Each alone: 1/4, and 1/8 of the 1/4 in which both were drawn to be hidden. Five deviations are 0.054.
    assert counts["image"] / 2000 == pytest.approx(0.375, abs=0.054)
    assert counts["text"] / 2000 == pytest.approx(0.375, abs=0.054)
    assert all(shown)


def test_evaluation_hides_nothing() -> None:
    assert all(prepare(MEMBERS, CONFIG).arrays.keys() == {"image", "text"} for _ in range(10))


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"png": b"broken"}, r"\.png: not an image"),
        ({"png": png(), "jpg": png()}, "input image: two members fit: .jpg and .png"),
        ({"txt": b"x", "cls": b"two"}, r"\.cls: label is not a number"),
        ({"txt": b"x", "cls": b"-5"}, "label -5"),
        ({"txt": b"x", "json": b'{"weight": "heavy"}'}, r"\.json: weight or labels are not"),
        ({"txt": b"x", "json": b'{"weight": -1}'}, "weight -1.0"),
        ({"txt": b"x", "json": b'{"labels": [3, -1]}'}, r"labels \[3, -1\] are out of range"),
        ({"txt": b"x", "json": b"{"}, r"\.json: weight or labels are not"),
    ],
)
def test_what_is_wrong_with_a_sample_is_said(members: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        prepare(members, CONFIG)


def test_a_modality_that_is_not_configured_is_not_even_decoded() -> None:
    with pytest.raises(ValueError, match=r"\.wav"):
        prepare(MEMBERS, DataConfig(inputs={"audio": AudioConfig()}))
    assert prepare(MEMBERS, CONFIG).arrays
