"""A network's plan, and Hugging Face's files in and out, through the command."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from warm_start import finished

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import load
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.transforms.image import fit
from launch.cli.main import app
from launch.lifecycle.run_folder import RunFolder
from launch.networks.imports import _notes_of_padding
from launch.networks.network_files import _notes_of_export, network_config, network_of
from launch.run.creation import open_run
from model.budget import plan
from model.interop.huggingface import to_hugging_face
from model.interop.huggingface_config import config_from_hugging_face
from model.perceiver import Perceiver
from trainer.checkpoint.names import MANIFEST

Door = Callable[..., list[dict[str, Any]]]

PAPER = Path(__file__).parents[2] / "configs" / "paper"


def called(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def process(*arguments: str) -> str:
    command = [sys.executable, "-m", "launch", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = finished(command, cwd=PAPER.parents[1], env=environment)
    done.check_returncode()
    return done.stdout


def test_the_plan_of_a_paper_names_its_cost_and_what_fits() -> None:
    device = ("--memory-gib", "139", "--peak-tflops", "400", "--bf16")
    found = json.loads(called("plan", str(PAPER / "p1.yaml"), *device, "--json"))
    assert found["parts"]["total"]["parameters"] == 44_912_254
    assert found["form"] == "separable"
    none, blocks = found["policies"]["none"], found["policies"]["blocks"]
    assert 0 < none["micro_batch"] < blocks["micro_batch"]
    assert none["samples_per_second"] > blocks["samples_per_second"]
    assert [row["kernel"] for row in found["attention"]] == ["Triton or tiles", "flash"]
    told = called("plan", str(PAPER / "p1.yaml"), "model.num_latents=256")
    assert "cross_attends" in told
    assert told.splitlines()[-1].split() == ["self_attend", "8", "128", "flash", "none", "is", "given"]


def test_half_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="both --memory-gib and --peak-tflops"):
        called("plan", str(PAPER / "p1.yaml"), "--memory-gib", "80")


def theirs_to(folder: Path) -> transformers.PerceiverForMaskedLM:
    """A small model of Hugging Face's, saved."""
    config = transformers.PerceiverConfig(
        num_latents=4, d_latents=16, d_model=24, num_self_attends_per_block=1, max_position_embeddings=8, vocab_size=20
    )
    theirs = transformers.PerceiverForMaskedLM(config).eval()
    theirs.save_pretrained(folder)
    return theirs


LIES = [None, True, 0, -1, 2**40, 1.5, "4", [], [4], {}, float("nan")]


@pytest.mark.parametrize(
    "key", ["num_latents", "d_latents", "d_model", "num_self_attends_per_block", "vocab_size", "hidden_act",
            "num_self_attention_heads", "train_size", "architectures", "max_position_embeddings", "v_channels"],
)  # fmt: skip
def test_a_config_of_others_that_lies_is_refused_with_the_folders_name(tmp_path: Path, key: str) -> None:
    theirs_to(tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    fields = json.loads(path.read_text())
    for lie in LIES:
        path.write_text(json.dumps({**fields, key: lie}))
        if lie is None and key == "v_channels":
            continue
        with pytest.raises(ValueError, match=str(tmp_path / "theirs")):
            called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()


def test_weights_of_others_that_lie_are_refused_with_the_files_name(tmp_path: Path) -> None:
    theirs_to(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    weights = load_file(path)
    for damage in (
        lambda content: content[:-1],
        lambda content: b"\xff" * 7 + content[7:],
        lambda content: content[:5],
    ):
        content = path.read_bytes()
        path.write_bytes(damage(content))
        with pytest.raises(ValueError, match=r"model\.safetensors: is not a safetensors file"):
            called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
        path.write_bytes(content)
    name = "perceiver.embeddings.latents"
    save_file({**weights, name: weights[name].T.contiguous()}, path)
    with pytest.raises(ValueError, match=rf"theirs: .*{name}: expected \(4, 16\), got \(16, 4\)"):
        called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))


def test_hugging_faces_files_come_in_and_go_out_again(tmp_path: Path) -> None:
    theirs = theirs_to(tmp_path / "theirs")
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    ids = torch.arange(8)[None]
    found = network_of(tmp_path / "ours")({"text": ids})["text"]
    torch.testing.assert_close(found, theirs(inputs=ids).logits, rtol=0, atol=2e-5)
    called("export", str(tmp_path / "ours"), str(tmp_path / "again"))
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # What went out is what transformers loads.
    loaded = transformers.PerceiverForMaskedLM.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(loaded(inputs=ids).logits, theirs(inputs=ids).logits)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's dependencies warn of each other
def test_another_runtime_runs_what_is_exported_as_onnx(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    theirs_to(tmp_path / "theirs")
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    ids = torch.arange(8)[None]
    found = network_of(tmp_path / "ours")({"text": ids})["text"]
    capfd.readouterr()
    called("export", str(tmp_path / "ours"), str(tmp_path / "onnx"), "--onnx")
    assert capfd.readouterr().err == ""  # the exporter says much of itself
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "network.onnx")
    given = {"text": ids.repeat(3, 1).numpy(), "text_length": np.full(3, 8)}
    answer, latents, mean = session.run(["text_answer", "latents", "latents_mean"], given)
    assert (latents.shape, mean.shape) == ((3, 4, 16), (3, 16))
    torch.testing.assert_close(torch.from_numpy(answer), found.detach().expand(3, -1, -1), rtol=0, atol=1e-5)


SIDE, CLASSES = 12, ("bright", "dark", "grün")
RUN = f"""
data:
  inputs: {{image: {{modality: image, height: {SIDE}, width: {SIDE}, resize: bicubic}}}}
model:
  inputs:
    image: {{height: {SIDE}, width: {SIDE}, pixel_range: imagenet, positions: {{max_resolution: [224, 224]}}}}
  outputs: {{label: {{kind: label, num_classes: 3, pooling: query}}}}
  decoder: {{query_residual: true}}
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {{num_heads: 2}}
train: {{steps: 3, global_batch: 8, evaluate_every_steps: 0}}
optimizer: {{learning_rate: 0.05}}
"""


def pictures_in(folder: Path) -> dict[str, list[Path]]:
    """Pictures of a few classes, of many sizes, in both splits."""
    generator = np.random.default_rng(0)
    found: dict[str, list[Path]] = {}
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES):
            for index in range(4):
                # Squares, of which nothing is cut: transformers cuts before it resizes, so that edges would differ.
                side = int(generator.integers(8, 40))
                pixels = generator.integers(0, 256, (side, side, 3)) * (number + 1) // 3
                path = folder / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
                found.setdefault(split, []).append(path)
    return found


@pytest.mark.slow
def test_the_exported_model_and_its_processor_answer_as_eval_does_on_the_same_pictures(tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path / "raw")["test"]
    called("data", "build", "image-folder", str(tmp_path / "raw"), str(tmp_path / "shards"), "--jobs", "1")
    config = tmp_path / "run.yaml"
    config.write_text(RUN)
    # DeepSpeed starts once a process.
    process("train", str(config), f"data.shards={tmp_path / 'shards'}", "--run", str(tmp_path / "run"))
    evaluated = json.loads(process("eval", str(tmp_path / "run"), "--json").splitlines()[-1])
    called("export", str(tmp_path / "run"), str(tmp_path / "out"))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    assert theirs.config.label2id == {name: index for index, name in enumerate(CLASSES)}
    ours = network_of(tmp_path / "run")
    right = 0
    for path in pictures:
        logits = theirs(inputs=processor(Image.open(path), return_tensors="pt")["pixel_values"]).logits
        section = ImageConfig(height=SIDE, width=SIDE, resize="bicubic")
        read, _ = fit(path.read_bytes(), section, None)
        expected = ours({"image": torch.from_numpy(read.copy())[None]})["label"]
        torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
        right += theirs.config.id2label[int(logits.argmax())] == path.parent.name
    assert evaluated["metrics"]["label"]["accuracy"]["all"] == pytest.approx(right / len(pictures))


def test_a_folder_that_is_there_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        called("import", str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_of_an_imported_network_is_refused_by_every_command_that_would_start_from_new_weights(
    tmp_path: Path,
) -> None:
    theirs_to(tmp_path / "theirs")
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    config, run = str(tmp_path / "ours" / "config.yaml"), str(tmp_path / "run")
    for arguments in (
        ("train", config, "--run", run),
        ("train", config, "--run", run, "--procs", "2"),
        ("fork", str(tmp_path / "ours"), run),
    ):
        with pytest.raises(
            ValueError, match=r"config\.yaml: describes the network whose weights are in .*copy"
        ) as caught:
            called(*arguments)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
    # The remedy: there is nothing beside the file that could be meant.
    (tmp_path / "other").mkdir()
    shutil.copy(config, tmp_path / "other")
    assert (
        load(
            tmp_path / "other" / "config.yaml",
            ["data.inputs.text={modality: text, num_bytes: 8, masking: {}}", "model.inputs.text.vocabulary=262"],
        ).model.num_latents
        == 4
    )


def test_what_is_beside_hugging_faces_weights_comes_back_from_an_export(tmp_path: Path) -> None:
    config = transformers.PerceiverConfig(
        num_latents=4, d_latents=16, d_model=261, num_self_attends_per_block=1, num_cross_attention_heads=1,
        id2label={0: "cat", 1: "Hündchen"}, label2id={"cat": 0, "Hündchen": 1},
    )  # fmt: skip
    transformers.PerceiverForImageClassificationFourier(config).save_pretrained(tmp_path / "theirs")
    said = {"size": {"height": 8, "width": 8}, "do_normalize": False, "resample": 0}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(said))
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    image = network_of(tmp_path / "ours").config.inputs["image"]
    assert image is not None
    assert (image.shape, image.pixel_range) == ((8, 8, 3), "unit")
    called("export", str(tmp_path / "ours"), str(tmp_path / "again"))
    assert json.loads((tmp_path / "again" / "preprocessor_config.json").read_text()) == said
    loaded = transformers.AutoConfig.from_pretrained(tmp_path / "again")
    assert loaded.id2label == {0: "cat", 1: "Hündchen"}
    assert loaded.label2id == {"cat": 0, "Hündchen": 1}


def test_a_network_of_texts_goes_out_with_its_tokenizer(tmp_path: Path) -> None:
    config = transformers.PerceiverConfig(
        num_latents=4, d_latents=16, d_model=24, num_self_attends_per_block=1, max_position_embeddings=16
    )
    transformers.PerceiverForMaskedLM(config).save_pretrained(tmp_path / "theirs")
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    told = json.loads(called("export", str(tmp_path / "ours"), str(tmp_path / "out"), "--json"))
    assert told["files"] == ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert told["notes"] == []
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    given = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(
        ["grün", "a longer one"], padding="max_length", return_tensors="pt"
    )
    expected = theirs(inputs=given["input_ids"], attention_mask=given["attention_mask"].float()).logits
    lengths = {"text": given["attention_mask"].sum(dim=1)}
    found = network_of(tmp_path / "ours")({"text": given["input_ids"]}, lengths)["text"]
    shown = given["attention_mask"].bool()
    torch.testing.assert_close(found[shown], expected[shown], rtol=0, atol=2e-5)


def test_a_convolution_that_transformers_pads_otherwise_is_refused(tmp_path: Path) -> None:
    network = Perceiver(config_from_hugging_face(
        {"architectures": ["PerceiverForImageClassificationConvProcessing"], "num_latents": 4, "d_latents": 16,
         "image_size": 8, "num_self_attends_per_block": 1, "num_cross_attention_heads": 1}
    ), seed=0)  # fmt: skip
    with pytest.raises(ValueError, match=r"inputs\.image\.conv_stem: transformers pads .*; export it as ONNX"):
        to_hugging_face(network)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_a_config_that_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    theirs_to(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        called("import", str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_folder_that_is_there_is_refused_before_any_work(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(app, [command, str(tmp_path / "nothing yet"), str(tmp_path)])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == f"{tmp_path}: is there already; choose another folder or remove it"


def test_a_plan_is_a_table_of_parts_policies_and_attentions(capsys: pytest.CaptureFixture[str]) -> None:
    without = called("plan", str(PAPER / "p1.yaml")).splitlines()
    found = json.loads(called("plan", str(PAPER / "p1.yaml"), "--json"))
    assert without[0].split() == ["part", "parameters", "GFLOP", "forward"]
    rows = {line.split()[0]: line.split() for line in without if len(line.split()) >= 3}
    total = found["parts"]["total"]
    assert rows["total"] == ["total", f"{total['parameters']:,}", f"{total['flops'] / 1e9:.2f}"]
    assert set(found["parts"]) <= set(rows)
    assert found["reading"]["cpu"] in without
    assert f"on a GPU, {found['reading']['cuda']}" in without
    assert without.count("") == 3
    needs = found["policies"]["none"]
    assert rows["none"] == ["none", f"{needs['activation_bytes'] / 2**20:.1f}", "-", "-"]
    device = ("--memory-gib", "139", "--peak-tflops", "400", "--bf16")
    with_device = called("plan", str(PAPER / "p1.yaml"), *device).splitlines()
    needs = json.loads(called("plan", str(PAPER / "p1.yaml"), *device, "--json"))["policies"]["none"]
    [row] = [line.split() for line in with_device if line.startswith("none ")]
    size, speed = f"{needs['activation_bytes'] / 2**20:.1f}", f"{needs['samples_per_second']:.1f}"
    assert row == ["none", size, str(needs["micro_batch"]), speed]
    attention = found["attention"][0]
    line = next(line for line in without if line.startswith(attention["part"]) and attention["kernel"] in line)
    assert "none is given" in line or attention["masked_kernel"] in line
    head = next(line for line in without if line.startswith("GPU, bf16"))
    assert head.split() == ["GPU,", "bf16", "heads", "channels", "kernel", "with", "a", "mask"]
    # Numbers stand below each other.
    assert line.index(attention["kernel"]) + len(attention["kernel"]) == head.index("kernel") + len("kernel")


def test_a_device_is_planned_with_its_own_memory_speed_and_bytes(door: Door) -> None:
    found = plan.plan(network_config(PAPER / "p1.yaml"))
    asked = door("launch.networks.network_files.planned", found)
    called("plan", str(PAPER / "p1.yaml"), "--memory-gib", "0.5", "--peak-tflops", "2", "--bf16")
    called("plan", str(PAPER / "p1.yaml"), "model.num_latents=256")
    assert (asked[0]["device"], asked[0]["bytes_per_element"]) == (plan.Device(2**29, 2e12), 2)
    assert (asked[1]["device"], asked[1]["bytes_per_element"]) == (None, 4)
    assert asked[1]["config"].num_latents == 256
    # AdamW's two moments for a network alone; of a run what its optimizer and its average keep.
    called("plan", str(PAPER.parent / "digits.yaml"), "optimizer.name=adamw", "ema.decay=0.9")
    assert [each["beside"] for each in asked] == [2, 2, 3]
    with pytest.raises(ValueError, match="both --memory-gib and --peak-tflops"):
        called("plan", str(PAPER / "p1.yaml"), "--peak-tflops", "80")


PLAN = plan.Plan(
    {"encoder": plan.Cost(1_000, 25_000_000_000), "total": plan.Cost(1_234_567, 30_000_000_000)},
    None,
    {"cpu": "read by tiles", "cuda": "by a kernel"},
    {"none": plan.PolicyPlan(3 << 20, None, None), "blocks": plan.PolicyPlan(1 << 19, 7, 12.34)},
    {2: plan.SizePlan(500, 1_000_000_000, 5 << 20), 16: plan.SizePlan(1_234_567, 30_000_000_000, 3 << 20)},
    (
        plan.AttentionKernel("self_attend", 8, (16, 32), "flash", ""),
        plan.AttentionKernel("decoder", 1, (64, 64), "tiles", "math"),
    ),
)
HEAD = """\
part               parameters  GFLOP forward
encoder                 1,000          25.00
total               1,234,567          30.00

latents            parameters  GFLOP forward   MiB a sample
2                         500           1.00            5.0
16                  1,234,567          30.00            3.0
"""
POLICIES = """\
checkpointing    MiB a sample    micro-batch      samples/s
none                      3.0              -              -
blocks                    0.5              7           12.3
"""
KERNELS = """\
GPU, bf16               heads       channels               kernel          with a mask
self_attend                 8          16/32                flash        none is given
decoder                     1             64                tiles                 math
"""


def test_a_plan_is_printed_whole(door: Door) -> None:
    door("launch.networks.network_files.planned", PLAN)
    told = called("plan", str(PAPER / "p1.yaml"))
    assert told == f"{HEAD}\nread by tiles\non a GPU, by a kernel\n\n{POLICIES}\n{KERNELS}"


def test_of_a_plug_ins_network_is_told_what_is_known(door: Door) -> None:
    door("launch.networks.network_files.planned", replace(PLAN, reading={}, latents={}, attention=()))
    told = called("plan", str(PAPER / "p1.yaml"))
    head, _, _ = HEAD.partition("\nlatents")
    assert told.startswith(f"{head}\na plug-in's network: ")
    assert told.endswith(f"are not known\n\n{POLICIES}")


def test_what_came_in_and_went_out_is_told_with_its_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs_to(tmp_path / "theirs")
    count = sum(weight.numel() for weight in load_file(tmp_path / "theirs" / "model.safetensors").values())
    ours, files = tmp_path / "ours", ["config.yaml", "model.safetensors"]
    told = json.loads(called("import", str(tmp_path / "theirs"), str(ours), "--json"))
    assert told == {"folder": str(ours), "files": files, "parameters": count, "notes": []}
    told = called("export", str(ours), str(tmp_path / "out")).splitlines()
    assert told[0] == f"{tmp_path}/out: {count:,} parameters"
    [note] = told[1:]
    assert note.startswith("note: transformers has no preprocessor for text: ")
    told = json.loads(called("export", str(ours), str(tmp_path / "again"), "--json"))
    assert told["files"] == ["README.md", "config.json", "model.safetensors"]
    assert [f"note: {each}" for each in told["notes"]] == [note]
    with safe_open(tmp_path / "again" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


class Program:
    """A network in ONNX, as far as it is a file."""

    def save(self, path: Path) -> None:
        path.write_text("onnx")


@pytest.mark.parametrize("has_image", [False, True])
def test_what_onnx_cannot_say_of_classes_and_pictures_goes_with_it(tmp_path: Path, door: Door, has_image: bool) -> None:
    config = {"num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 1}
    if has_image:
        both = transformers.PerceiverConfig(
            **config,
            d_model=261,
            num_cross_attention_heads=1,
            id2label={0: "cat", 1: "dog"},
            label2id={"cat": 0, "dog": 1},
        )
        transformers.PerceiverForImageClassificationFourier(both).save_pretrained(tmp_path / "theirs")
        size = {"size": {"height": 8, "width": 8}, "crop_size": 10, "resample": 2, "do_normalize": False}
        (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(size))
    else:
        theirs_to(tmp_path / "theirs")
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    asked = door("model.interop.onnx_export.onnx_program", Program())
    told = json.loads(called("export", str(tmp_path / "ours"), str(tmp_path / "out"), "--onnx", "--json"))
    assert (told["files"], told["notes"]) == (["network.onnx"], [])
    picture = "resize=bilinear, fit=crop, centre_crop=0.8" if has_image else ""
    assert asked[0]["picture"] == picture
    assert asked[0]["classes"] == (("cat", "dog") if has_image else ())
    assert asked[0]["with_latents"] is True


def test_an_import_has_no_checkpoints_to_choose_from_and_half_a_folder_is_named(tmp_path: Path) -> None:
    theirs_to(tmp_path / "theirs")
    called("import", str(tmp_path / "theirs"), str(tmp_path / "ours"))
    with pytest.raises(ValueError, match=r"--checkpoint best: .* has no checkpoints but one network"):
        called("export", str(tmp_path / "ours"), str(tmp_path / "out"), "--checkpoint", "best")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"theirs: expected model\.safetensors, or one .*, found none"):
        called("import", str(tmp_path / "theirs"), str(tmp_path / "other"))
    assert not (tmp_path / "out").exists()


def test_a_run_goes_out_with_the_weights_of_the_checkpoint_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shards: Path
) -> None:
    config = load(PAPER.parent / "digits.yaml", [f"data.shards={shards}", "model.num_latents=4"])
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    for step, score in ((4, 0.9), (8, 0.1)):
        save(folder.checkpoints_folder, step, Perceiver(config.model, seed=step).state_dict(), score=score)
    for which, seed in (("newest", 8), ("best", 4), ("4", 4)):
        found = network_of(folder.path, which)
        assert not found.training
        assert torch.equal(found.encoder.latents.weight, Perceiver(config.model, seed=seed).encoder.latents.weight)
    (folder.checkpoints_folder / "step_00000008" / MANIFEST).write_text("{")
    assert torch.equal(
        network_of(folder.path).encoder.latents.weight, Perceiver(config.model, seed=4).encoder.latents.weight
    )
    assert "skipped a damaged checkpoint" in capsys.readouterr().err


def test_inputs_without_a_file_of_transformers_are_named() -> None:
    config = load(PAPER.parent / "digits.yaml").model

    def named(files: dict[str, object]) -> list[str]:
        [note] = _notes_of_export(config, files)
        return sorted(note.partition(":")[0].removeprefix("transformers has no preprocessor for ").split(", "))

    assert named({}) == ["audio", "points", "text", "video"]
    assert named({"tokenizer.json": {}}) == named({"tokenizer_config.json": {}}) == ["audio", "points", "video"]
    image = config.inputs["image"]
    assert image is not None
    alone = replace(config, inputs={"image": image})
    assert _notes_of_export(alone, {}) == _notes_of_padding(alone) == ()
    [note] = _notes_of_padding(replace(config, inputs={"image": replace(image, conv_stem=True)}))
    assert "DeepMind's padding" in note
    assert _notes_of_padding(replace(config, inputs={"text": config.inputs["text"]})) == ()
