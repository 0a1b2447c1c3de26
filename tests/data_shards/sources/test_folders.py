"""Sources whose classes are folders or lists: images, recordings, point clouds, videos."""

import io
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from PIL import Image

from data_shards.building.raw_sample import Row
from data_shards.format.manifest import Manifest
from data_shards.format.tar_index import TarIndex
from data_shards.modalities.decoding import audio, points
from data_shards.sources import audio_folder, class_folders, image_folder, point_clouds, videos
from data_shards.sources.digits import Drawn


def jpeg(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def members(folder: Path, built: Manifest, split: str = "train") -> dict[str, dict[str, bytes]]:
    """Every sample of a split, by key."""
    samples = {}
    for shard in built.split(split).shards:
        index, data = TarIndex.read((folder / shard.name).with_suffix(".idx")), (folder / shard.name).read_bytes()
        for number, key in enumerate(index.keys):
            places = index.members(number).items()
            samples[key] = {extension: data[offset : offset + length] for extension, (offset, length) in places}
    return samples


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/cat/1.png", "train"),
        ("val/cat/1.png", "val"),
        ("cat/test/1.png", "test"),
        ("cat/1.png", "train"),
        ("cat/deeper/1.png", "train"),
        ("test/cat/deeper/1.PNG", "test"),
    ],
)
def test_folders_say_split_and_class(tmp_path: Path, path: str, split: str) -> None:
    put(tmp_path / path, b"")
    put(tmp_path / "cat" / "readme.md", b"")
    put(tmp_path / "cat" / ".hidden.png", b"")
    files, names = class_folders.find(tmp_path, "image")
    assert [(file.path, file.label, file.split) for file in files] == [(str(tmp_path / path), 0, split)]
    assert names == ["cat"]


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.wav", b"")
    put(tmp_path / "1.png", b"")
    with pytest.raises(ValueError, match=r"no image file \(png, jpg.*\) in a folder of its class"):
        class_folders.find(tmp_path, "image")
    with pytest.raises(ValueError, match="no such folder"):
        class_folders.find(tmp_path / "gone", "image")


def test_imagenets_layout_becomes_shards(tmp_path: Path) -> None:
    for name, split in [("n01440764", "train"), ("n01443537", "train"), ("n01443537", "val")]:
        put(tmp_path / "in" / split / name / f"{name}_1.JPEG", jpeg(100))
    built = image_folder.build(tmp_path / "in", tmp_path / "out")
    assert built.label_names == ("n01440764", "n01443537")
    assert built.split("train").label_counts == (1, 1)
    assert built.split("val").label_counts == (0, 1)
    (sample,) = members(tmp_path / "out", built, "val").values()
    assert sample == {"jpeg": jpeg(100), "cls": b"1"}


SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
-0SdAVK79lg, 30.000, 40.000, "/m/09x0r"
abcdefghijk, 0.000, 10.000, "/t/dd00088"
"""


def test_audiosets_lists_give_several_labels(tmp_path: Path) -> None:
    sound = Drawn(0, 0, "wav").read()
    for name in ("--PJHxphWEs_30.000.wav", "sub/Y-0SdAVK79lg.wav", "abcdefghijk.wav"):
        put(tmp_path / "in" / name, sound)
    put(tmp_path / "train.csv", SEGMENTS.encode())
    put(tmp_path / "classes.csv", b"index,mid,display_name\n1,/t/dd00088,Gush\n0,/m/09x0r,Speech\n")
    built = audio_folder.build(
        tmp_path / "in",
        tmp_path / "out",
        segments={"train": tmp_path / "train.csv"},
        classes=tmp_path / "classes.csv",
    )
    assert built.label_names == ("Speech", "Gush")
    assert built.split("train").label_counts == (2, 2)
    samples = members(tmp_path / "out", built)
    assert samples["00000000"] == {"wav": sound, "json": b'{"labels": [0, 1]}'}
    assert samples["00000002"]["json"] == b'{"labels": [1]}'


def test_a_recording_that_audioset_lists_and_youtube_has_lost_is_a_bad_row(tmp_path: Path) -> None:
    put(tmp_path / "in" / "--PJHxphWEs.wav", Drawn(0, 0, "wav").read())
    put(tmp_path / "train.csv", SEGMENTS.encode())
    segments = {"train": tmp_path / "train.csv"}
    with pytest.raises(ValueError, match=r"line 1: .*-0SdAVK79lg.wav: No such file"):
        audio_folder.build(tmp_path / "in", tmp_path / "out", segments=segments)
    built = audio_folder.build(tmp_path / "in", tmp_path / "out", segments=segments, max_bad=2)
    assert built.label_names == ("/m/09x0r", "/t/dd00088")
    assert built.split("train").num_samples == 1


def test_what_is_wrong_with_audiosets_lists_is_said(tmp_path: Path) -> None:
    put(tmp_path / "in" / "x.wav", b"")
    put(tmp_path / "train.csv", b"id, 0, 10\n")
    with pytest.raises(ValueError, match="expected an id, start, end and labels"):
        audio_folder.build(tmp_path / "in", tmp_path / "out", segments={"train": tmp_path / "train.csv"})
    put(tmp_path / "train.csv", SEGMENTS.encode())
    put(tmp_path / "classes.csv", b"index,mid,display_name\n0,/m/09x0r,Speech\n")
    with pytest.raises(ValueError, match=r"no class '/t/dd00088', which --PJHxphWEs has"):
        audio_folder.read_segments(tmp_path / "in", {"train": tmp_path / "train.csv"}, tmp_path / "classes.csv")
    put(tmp_path / "classes.csv", b"a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns index, mid"):
        audio_folder.read_segments(tmp_path / "in", {"train": tmp_path / "train.csv"}, tmp_path / "classes.csv")


OFF = b"OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"


def test_modelnets_meshes_are_sampled_by_the_seed(tmp_path: Path) -> None:
    for name in ("chair/train/a.off", "chair/train/b.off", "chair/test/c.off"):
        put(tmp_path / "in" / name, OFF)
    for out, seed in [("one", 0), ("two", 0), ("other", 1)]:
        point_clouds.build(tmp_path / "in", tmp_path / out, num_points=50, seed=seed)
    built = point_clouds.build(tmp_path / "in", tmp_path / "one", num_points=50)
    clouds = {key: sample["npy"] for key, sample in members(tmp_path / "one", built).items()}
    assert {points.points(data).shape for data in clouds.values()} == {(50, 3)}
    assert len(set(clouds.values())) == 2, "two equal meshes give different points"
    train = {out: (tmp_path / out / "train" / "000000.tar").read_bytes() for out in ("one", "two", "other")}
    assert train["one"] == train["two"] != train["other"]
    assert built.split("test").num_samples == 1


def test_a_mesh_can_be_stored_as_it_is(tmp_path: Path) -> None:
    put(tmp_path / "in" / "chair" / "a.off", OFF)
    built = point_clouds.build(tmp_path / "in", tmp_path / "out", num_points=0)
    (sample,) = members(tmp_path / "out", built).values()
    assert sample == {"off": OFF, "cls": b"0"}


def test_modelnets_hdf5_files_are_read(tmp_path: Path) -> None:
    clouds = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    (tmp_path / "in").mkdir()
    for name, part in [
        ("ply_data_train0.h5", slice(0, 2)),
        ("ply_data_train1.h5", slice(2, 4)),
        ("ply_data_test0.h5", slice(4, 5)),
    ]:
        with h5py.File(tmp_path / "in" / name, "w") as file:
            file["data"] = clouds[part]
            file["label"] = np.arange(5)[part, None] % 2
    put(tmp_path / "in" / "shape_names.txt", b"airplane\nbathtub\n")
    built = point_clouds.build(tmp_path / "in", tmp_path / "out")
    assert built.label_names == ("airplane", "bathtub")
    assert (built.split("train").label_counts, built.split("test").label_counts) == ((2, 2), (1, 0))
    samples = members(tmp_path / "out", built)
    for number, key in enumerate(sorted(samples)):
        np.testing.assert_array_equal(points.points(samples[key]["npy"]), clouds[number])
        assert samples[key]["cls"] == str(number % 2).encode()


def test_an_hdf5_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ValueError, match="expected HDF5 with the arrays data and label"):
        point_clouds.build(tmp_path, tmp_path / "out")
    put(tmp_path / "a.h5", b"no hdf5")
    with pytest.raises(ValueError, match=r"a\.h5: expected HDF5"):
        point_clouds.build(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("how", ["link", "raw", "virtual"])
def test_an_hdf5_file_cannot_bring_another_files_bytes(tmp_path: Path, how: str) -> None:
    put(tmp_path / "secret", np.ones((1, 2, 3), np.float32).tobytes())
    with h5py.File(tmp_path / "other", "w") as file:
        file["data"] = np.ones((1, 2, 3), np.float32)
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "train.h5", "w") as file:
        file["label"] = [0]
        match how:
            case "link":
                file["data"] = h5py.ExternalLink(str(tmp_path / "other"), "/data")
            case "raw":
                file.create_dataset("data", (1, 2, 3), np.float32, external=[(str(tmp_path / "secret"), 0, 24)])
            case "virtual":
                layout = h5py.VirtualLayout((1, 2, 3), np.float32)
                layout[:] = h5py.VirtualSource(str(tmp_path / "other"), "data", (1, 2, 3))
                file.create_virtual_dataset("data", layout)
    with pytest.raises(ValueError, match=r"train\.h5: .*data is not there, or is a link|lies in the file itself"):
        point_clouds.build(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("shape", [(1 << 40, 2, 3), (1, 1 << 40, 3)])
def test_an_hdf5_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_dataset("data", shape, np.float32, chunks=(1, 2, 3))
        file.create_dataset("label", shape[:1], np.int64, chunks=(1,))
    with pytest.raises(ValueError, match="more than the file can hold"):
        point_clouds.build(tmp_path, tmp_path / "out")


def test_an_hdf5_file_may_have_many_clouds_of_the_greatest_size_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["data"] = np.zeros((4, 2, 3), np.float32)
        file["label"] = np.arange(4)
    # A cloud becomes numbers of 32 bits.
    monkeypatch.setattr(point_clouds, "MAX_BYTES", 4 * 2 * 3)
    assert point_clouds.build(tmp_path, tmp_path / "out").split("train").label_counts == (1, 1, 1, 1)
    monkeypatch.setattr(point_clouds, "MAX_BYTES", 4 * 2 * 3 - 1)
    with pytest.raises(ValueError, match="more than the file can hold"):
        point_clouds.build(tmp_path, tmp_path / "again")


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile a.mp4\n", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n"])
def test_the_sound_of_a_text_that_names_other_files_is_not_looked_for(tmp_path: Path, text: str) -> None:
    put(tmp_path / "a.mp4", text.encode())
    with pytest.raises(ValueError, match="not a video"):
        videos.extract_audio(str(tmp_path / "a.mp4"))


def clip(with_sound: bool) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.height = pictures.width = 16
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="stereo") if with_sound else None
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if sound:
            tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(8_000) / 16_000)
            samples = av.AudioFrame.from_ndarray(np.tile(tone, (2, 1)).astype(np.float32), "fltp", "stereo")
            samples.sample_rate = 16_000
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return file.getvalue()


def test_a_videos_sound_becomes_a_member_and_a_silent_one_has_none(tmp_path: Path) -> None:
    put(tmp_path / "in" / "train" / "jump" / "loud.mp4", clip(with_sound=True))
    put(tmp_path / "in" / "train" / "run" / "silent.mp4", clip(with_sound=False))
    built = videos.build(tmp_path / "in", tmp_path / "out")
    assert built.split("train").shards.suffixes == {"wav": 1, "mp4": 2, "cls": 2}
    samples = members(tmp_path / "out", built)
    assert samples["00000001"].keys() == {"mp4", "cls"}
    samples_1khz, rate = audio.audio(samples["00000000"]["wav"])
    assert rate == 16_000
    assert np.fft.rfftfreq(len(samples_1khz), 1 / rate)[np.abs(np.fft.rfft(samples_1khz)).argmax()] == pytest.approx(
        1_000, abs=5
    )
    assert videos.build(tmp_path / "in", tmp_path / "deaf", audio=False).split("train").shards.suffixes == {
        "mp4": 2,
        "cls": 2,
    }


def test_videos_can_be_listed_in_a_table(tmp_path: Path) -> None:
    put(tmp_path / "clips" / "a.mp4", clip(with_sound=True))
    put(tmp_path / "table.csv", b"video,label,split\nclips/a.mp4,jump,train\n")
    built = videos.build(tmp_path / "table.csv", tmp_path / "out")
    assert built.label_names == ("jump",)
    assert built.split("train").shards.suffixes == {"wav": 1, "mp4": 1, "cls": 1}


def test_a_row_of_nothing_but_a_silent_track_is_bad(tmp_path: Path) -> None:
    put(tmp_path / "silent.mp4", clip(with_sound=False))
    from data_shards.building.builder import build_table

    with pytest.raises(ValueError, match=r"line 3: .*silent.mp4 \(audio track\): holds no modality"):
        build_table([Row(3, (videos.Soundtrack(str(tmp_path / "silent.mp4")),))], tmp_path / "out")
