import numpy as np
import pytest

from data_shards import decode
from data_shards.decoders.audio import audio
from data_shards.rows import Row
from data_shards.sources import digits


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return digits.rows(seed=0)


def member(row: Row, extension: str) -> bytes:
    return next(content for content in row.members if content.extension == extension).read()


def test_a_fifth_of_each_digit_is_for_testing(rows: list[Row]) -> None:
    assert len(rows) == 1797
    for digit in range(10):
        of_digit = [row for row in rows if row.label == digit]
        assert sum(row.split == "test" for row in of_digit) == round(len(of_digit) / 5)


def test_another_seed_tests_on_other_digits(rows: list[Row]) -> None:
    assert [row.split for row in digits.rows(seed=0)] == [row.split for row in rows]
    assert [row.split for row in digits.rows(seed=1)] != [row.split for row in rows]


@pytest.mark.parametrize("extension", ["png", "wav", "npy", "mp4", "txt"])
def test_a_member_is_the_same_to_the_byte_for_a_seed(extension: str) -> None:
    drawn = digits.Drawn(11, 3, extension).read()
    assert drawn == digits.Drawn(11, 3, extension).read()
    if extension in ("wav", "npy", "mp4"):
        assert drawn != digits.Drawn(11, 4, extension).read()


def test_the_image_is_the_handwriting(rows: list[Row]) -> None:
    from sklearn.datasets import load_digits

    pixels = decode.pixels(member(rows[5], "png"))
    np.testing.assert_allclose(pixels[..., 0] / 255, load_digits().images[5] / 16, atol=0.5 / 255)


@pytest.mark.parametrize("number", range(10))
def test_the_tone_is_the_one_of_the_digits_key(rows: list[Row], number: int) -> None:
    row = next(row for row in rows if row.label == number)
    samples, sample_rate = audio(member(row, "wav"))
    spectrum = np.abs(np.fft.rfft(samples))
    frequencies = np.fft.rfftfreq(len(samples), 1 / sample_rate)
    loudest = sorted(frequencies[np.argsort(spectrum)[-2:]])
    # A bin is 4 Hz wide; neighbouring keys are 70 Hz apart.
    assert loudest == pytest.approx([digits.KEYPAD_ROWS[number], digits.KEYPAD_COLUMNS[number]], abs=4)


def test_the_points_lie_on_the_strokes(rows: list[Row]) -> None:
    cloud = decode.points(member(rows[0], "npy"))
    pixels = decode.pixels(member(rows[0], "png"))[..., 0]
    columns, lines = ((cloud[:, 0] + 1) * 4).astype(int), ((1 - cloud[:, 1]) * 4).astype(int)
    assert (pixels[lines, columns] > 0).all()
    assert np.all(cloud[:, 2] <= pixels[lines, columns] / 255 / 2 + 0.01)


def test_the_digit_of_the_clip_drifts_within_the_canvas(rows: list[Row]) -> None:
    frames = decode.video(member(rows[0], "mp4"))[..., 0].astype(float)
    ink = frames.sum(axis=(1, 2))
    # Nothing is lost at a border; the codec changes the sum by a few per cent.
    np.testing.assert_allclose(ink, ink[0], rtol=0.1)
    centres = (frames.sum(axis=1) @ np.arange(32)) / ink
    assert abs(centres[-1] - centres[0]) > 1


def test_the_text_is_the_digits_name(rows: list[Row]) -> None:
    assert member(next(row for row in rows if row.label == 7), "txt") == b"seven"
