import numpy as np
import pytest

from data_shards.building.raw_sample import Row
from data_shards.modalities.decoding import image, points, video
from data_shards.modalities.decoding.audio import audio
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

    pixels = image.pixels(member(rows[5], "png"))
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
    cloud = points.points(member(rows[0], "npy"))
    pixels = image.pixels(member(rows[0], "png"))[..., 0]
    columns, lines = ((cloud[:, 0] + 1) * 4).astype(int), ((1 - cloud[:, 1]) * 4).astype(int)
    assert (pixels[lines, columns] > 0).all()
    assert np.all(cloud[:, 2] <= pixels[lines, columns] / 255 / 2 + 0.01)


def test_the_digit_of_the_clip_drifts_within_the_canvas(rows: list[Row]) -> None:
    frames = video.video(member(rows[0], "mp4"))[..., 0].astype(float)
    ink = frames.sum(axis=(1, 2))
    # Nothing is lost at a border; the codec changes the sum by a few per cent.
    np.testing.assert_allclose(ink, ink[0], rtol=0.1)
    centres = (frames.sum(axis=1) @ np.arange(32)) / ink
    assert abs(centres[-1] - centres[0]) > 1


def test_the_text_is_the_digits_name(rows: list[Row]) -> None:
    assert member(next(row for row in rows if row.label == 7), "txt") == b"seven"


def test_the_keypad_is_that_of_the_recommendation() -> None:
    """ITU-T Q.23: rows of 1 2 3, 4 5 6, 7 8 9 and * 0 #."""
    lower, higher = (697, 770, 852, 941), (1209, 1336, 1477)
    keys = {number: divmod(number - 1, 3) for number in range(1, 10)} | {0: (3, 1)}
    for number, (row, column) in keys.items():
        assert (digits.KEYPAD_ROWS[number], digits.KEYPAD_COLUMNS[number]) == (lower[row], higher[column])


def test_members_have_the_shapes_that_the_configurations_read(rows: list[Row]) -> None:
    samples, rate = audio(member(rows[0], "wav"))
    assert (samples.shape, rate) == ((2_000,), 8_000)
    assert points.points(member(rows[0], "npy")).shape == (256, 3)
    assert video.video(member(rows[0], "mp4")).shape == (8, 32, 32, 3)
    assert image.pixels(member(rows[0], "png")).shape == (8, 8, 3)


@pytest.mark.parametrize("number", [0, 7, 100])
def test_a_tone_is_above_its_noise_at_any_loudness_and_phase(rows: list[Row], number: int) -> None:
    tones = [audio(digits.Drawn(number, seed, "wav").read())[0] for seed in range(40)]
    sizes = np.abs(np.fft.rfft(np.array(tones), axis=1)) / 1_000
    label = rows[number].label
    assert label is not None
    # 4 Hz a bin: of a tone between two bins up to a third is lost.
    heights = [sizes[:, round(hertz / 4)] for hertz in (digits.KEYPAD_ROWS[label], digits.KEYPAD_COLUMNS[label])]
    for height in heights:
        assert 0.05 < height.min() < 0.15
        assert 0.17 < height.max() < 0.32
    # Noise of deviation 0.1 in 2 000 samples: 0.1 * sqrt(2 / 2000) in a bin.
    assert np.sqrt((sizes[:, 500:900] ** 2).mean()) == pytest.approx(0.1 * np.sqrt(2_000) / 1_000, rel=0.05)


def test_points_are_denser_and_higher_where_the_ink_is_darker(rows: list[Row]) -> None:
    pixels = image.pixels(member(rows[3], "png"))[..., 0] / 255
    cloud = np.concatenate([points.points(digits.Drawn(3, seed, "npy").read()) for seed in range(60)])
    columns, lines = ((cloud[:, 0] + 1) * 4).astype(int), ((1 - cloud[:, 1]) * 4).astype(int)
    counts = np.zeros((8, 8))
    np.add.at(counts, (lines, columns), 1)
    # 15 360 points: a pixel's share of them is known to half a per cent of all.
    np.testing.assert_allclose(counts / len(cloud), pixels / pixels.sum(), atol=0.005)
    shares = cloud[:, 2] / (pixels[lines, columns] / 2)
    assert shares.min() >= 0
    assert shares.max() <= 1.01
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    # Anywhere within the pixel.
    for within in ((cloud[:, 0] + 1) * 4 % 1, (1 - cloud[:, 1]) * 4 % 1):
        assert within.mean() == pytest.approx(0.5, abs=0.01)


def test_the_clip_has_the_whole_digit_on_a_straight_way() -> None:
    starts, ends = set(), set()
    for seed in range(12):
        frames = video.video(digits.Drawn(0, seed, "mp4").read())[..., 0].astype(float)
        centres = np.array(
            [[frame.sum(axis=1 - axis) @ np.arange(32) / frame.sum() for axis in (0, 1)] for frame in frames]
        )
        steps = np.diff(centres, axis=0)
        # Places are whole pixels, each coordinate on its way without a turn; the codec moves a centre a little.
        assert (steps * np.sign(steps.sum(axis=0)) > -0.1).all()
        assert np.abs(steps).max() < 2.2
        assert (np.ptp(steps, axis=0) < 1.3).all()
        starts.add(tuple(centres[0].round().tolist()))
        ends.add(tuple(centres[-1].round().tolist()))
    assert len(starts) > 6
    assert len(ends) > 6
