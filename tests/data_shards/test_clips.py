"""Sound and video of a sample are cut at the same time; an evaluation reads several clips of each sample."""

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from configs.files import ConfigError
from configs.run import load
from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from data_shards.config import DataConfig
from data_shards.loading.sample import prepare
from data_shards.loading.shard_loader import ShardLoader
from data_shards.loading.streams import eval_loader
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.transform_config import ClipsConfig

FRAMES, RATE = 21, 1000
INPUTS = {
    "sound": AudioConfig(sample_rate=RATE, num_samples=RATE // 5),
    "clip": VideoConfig(num_frames=5, height=8, width=8, frame_step=1),
}


def wav() -> bytes:
    """A second of sound, louder and louder."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(np.linspace(0, 32_000, RATE).astype("<i2").tobytes())
    return file.getvalue()


def mp4() -> bytes:
    """Frames that become brighter, ten levels each."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 20 + 10 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


MEMBERS = {"wav": wav(), "mp4": mp4()}


def places(data: DataConfig, rng: np.random.Generator | None = None, clip: int = 0) -> tuple[float, float]:
    """Where the sound and the video of the sample begin, as parts of what may be left before them."""
    arrays = prepare(MEMBERS, data, rng, clip=clip).arrays
    first = round((float(arrays["clip"][0].mean()) - 20) / 10)
    return float(arrays["sound"][0]) * 32_768 / 32_000 / 0.8, first / (FRAMES - 5)


def test_training_cuts_sound_and_video_at_the_same_time_anywhere() -> None:
    data = DataConfig(inputs=INPUTS, clips=ClipsConfig())
    found = [places(data, np.random.default_rng(seed)) for seed in range(12)]
    for sound, video in found:
        # A frame is a sixteenth of what may be left before the clip.
        assert sound == pytest.approx(video, abs=0.04)
    assert max(video for _, video in found) - min(video for _, video in found) > 0.4


def test_an_evaluation_reads_clips_from_the_beginning_to_the_end() -> None:
    data = DataConfig(inputs=INPUTS, clips=ClipsConfig(num_test=5))
    assert [places(data, clip=number)[1] for number in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [places(data, clip=number)[0] for number in range(5)] == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.01)
    assert places(DataConfig(inputs=INPUTS, clips=ClipsConfig()))[1] == 0.5


def test_an_input_that_says_where_it_is_read_stays_there() -> None:
    inputs = {**INPUTS, "sound": AudioConfig(sample_rate=RATE, num_samples=RATE // 5, place=1.0)}
    data = DataConfig(inputs=inputs, clips=ClipsConfig(num_test=2))
    assert places(data, clip=0) == pytest.approx((1.0, 0.0), abs=0.01)


def test_each_batch_comes_once_for_every_clip_where_that_is_asked_for(tmp_path: Path) -> None:
    members = tuple(Literal(data, extension) for extension, data in MEMBERS.items())
    rows = [Row(number, members, label=number % 2, split="test" if number > 3 else "train") for number in range(7)]
    build_table(rows, tmp_path / "shards", label_names=["a", "b"])
    data = DataConfig(shards=str(tmp_path / "shards"), inputs=INPUTS, clips=ClipsConfig(num_test=3))
    loader, num_steps = eval_loader(data, "test", global_batch=2)
    with loader:
        batches = [loader(step) for step in range(num_steps)]
    assert num_steps == 2 * 3
    assert [batch.keys for batch in batches[:3]] == [batches[0].keys] * 3 != [batch.keys for batch in batches[3:]]
    starts = [float(batch.arrays["sound"][0, 0]) for batch in batches]
    assert starts[:3] == starts[3:]
    assert sorted(starts[:3]) == starts[:3]
    with ShardLoader(data, global_batch=2, split="test") as in_a_loop_of_ones_own:
        assert [float(batch.arrays["sound"][0, 0]) for batch in in_a_loop_of_ones_own] == [starts[1]] * 2


@pytest.mark.parametrize(
    ("data", "outputs", "sentence"),
    [
        ("{photo: {modality: image}}, clips: {}", "{}", "cuts sound and video, and there is photo"),
        ("{sound: {modality: audio}}, clips: {num_test: 0}", "{}", "data.clips.num_test = 0: must be at least 1"),
        (
            "{sound: {modality: audio}}, clips: {num_test: 2}",
            "{sound: {kind: grid}}",
            "data.clips.num_test = 2: averages answers, and model.outputs.sound is about what was read; set it to 1",
        ),
        ("{sound: {modality: audio, place: 2}}", "{}", "data.inputs.sound.place = 2.0: must be from 0 to 1"),
        ("{clip: {modality: video, place: 1}}", "{}", "data.inputs.clip.place = 1.0: is for frame_step=1 or more"),
    ],
)
def test_what_clips_cannot_be_is_one_sentence(tmp_path: Path, data: str, outputs: str, sentence: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"data: {{inputs: {data}}}\nmodel: {{inputs: {{}}, outputs: {outputs}}}\n")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert sentence in str(error.value)
