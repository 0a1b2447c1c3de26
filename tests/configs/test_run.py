import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from configs.files import ConfigError
from configs.run import RunConfig, difference, dump, load
from data_shards.modalities.kinds import catalogue as data_catalogue
from model.modalities import catalogue as model_catalogue

NETWORK_ALONE = {"label"}
"""Modalities that only networks which programs call read."""
NAMED = Path(__file__).parents[2] / "configs"
VALID = """
seed: 3
data:
  inputs:
    image: {modality: image, height: 8, width: 8}
  lanes: 4
model:
  inputs:
    image:
      positions: {num_bands: 4}
  outputs:
    label: {kind: label, num_classes: 10}
train: {global_batch: 32}
"""


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    path = tmp_path / "valid.yaml"
    path.write_text(VALID)
    return path


def problems_of(path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return caught.value.problems


def test_the_file_overwrites_defaults_and_the_command_line_overwrites_the_file(valid: Path) -> None:
    config = load(valid, ["train.global_batch=64", "data.inputs.image.height=16"])
    assert (config.seed, config.train.global_batch) == (3, 64)
    assert config.model.inputs["image"] is not None
    assert config.model.inputs["image"].height == 16
    assert config.train.steps == RunConfig().train.steps


def test_nothing_in_place_of_a_section_takes_back_what_was_said_of_it(valid: Path) -> None:
    before = ["data.modality_dropout.image=0.5", "train.steps=7"]
    assert load(valid, [*before, "data.modality_dropout={}"]).data.modality_dropout == {}
    assert load(valid, [*before, "train={}", "train.global_batch=8"]).train.steps == RunConfig().train.steps
    assert load(valid, ["data.modality_dropout={}", *before]).data.modality_dropout == {"image": 0.5}


def test_a_resolved_config_loads_as_the_same_config(valid: Path, tmp_path: Path) -> None:
    config = load(valid, ["optimizer.schedule=step", "optimizer.decay_steps=[10,20]"])
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump(config))
    assert load(resolved) == config


def test_every_problem_of_types_and_keys_is_reported_at_once(valid: Path) -> None:
    problems = problems_of(
        valid,
        "train.stepz=3",
        "train.steps=many",
        "train.precision=fp8",
        "optimizer.name=sgd",
        "data.inputs.audio={modality: audio, sampl_rate: 1}",
        "lonely",
        "optimizer=3",
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "lonely",
        "train.stepz = 3",
        "train.steps = 'many'",
        "train.precision = 'fp8'",
        "data.inputs.audio.sampl_rate = 1",
        "optimizer = 3",
        "optimizer.name = 'sgd'",
    ]
    assert "did you mean train.steps?" in problems[1]
    assert "the default is 1000" in problems[2]
    assert "'bf16'" in problems[3]
    assert "did you mean data.inputs.audio.sample_rate?" in problems[4]
    assert "expected one of adamw, lamb, muon, or that of a plug-in" in problems[6]
    # A name that plug-ins may add is said once, beside contradictions too.
    problems = problems_of(valid, "optimizer.name=sgd", "optimizer.beta1=2")
    assert [problem.split(" = ")[0] for problem in problems] == ["optimizer.beta1", "optimizer.name"]


def test_every_contradiction_is_reported_at_once(valid: Path) -> None:
    problems = problems_of(
        valid,
        "data.lanes=5",
        "model.inputs.image.width=9",
        "data.inputs.text={modality: text, num_bytes: 7}",
        "train.steps=0",
    )
    assert {problem.split(" = ")[0] for problem in problems} == {
        "train.steps",
        "train.global_batch",
        "data.inputs.text",
        "model.inputs.image",
    }


def test_a_text_length_that_the_network_does_not_have_is_a_contradiction(valid: Path) -> None:
    (problem,) = problems_of(valid, "data.inputs.text={modality: text, num_bytes: 7}", "model.inputs.text.max_tokens=9")
    assert problem.startswith("model.inputs.text = {'max_tokens': 9}: reads arrays")
    assert "reads arrays of shape (9,), but data.inputs.text delivers (7,)" in problem


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "model.inputs.image.height=30",
            "model.inputs.image = {...}: reads arrays of shape (30, 8, 3), but data.inputs.image delivers (8, 8, 3); "
            "leave the sizes out here, or make the two agree",
        ),
        (
            "model.self_attend.num_heads=7",
            "model.self_attend.num_heads = 7: must divide 64, the channels of a latent vector; change it, or set "
            "qk_width to a multiple of it",
        ),
        (
            "model.inputs.depth={modality: image, height: 3, width: 3}",
            "model.inputs.depth = {...}: is set but data.inputs.depth is not; set both or neither",
        ),
        (
            "model.inputs.depth.modality=image",
            "model.inputs.depth = {...}: is set but data.inputs.depth is not; set both or neither",
        ),
        (
            "model.inputs.text.modality=label",
            "model.inputs.text.embedding_width = 32: unknown key; known are modality, num_classes",
        ),
        (
            "model.decoder.output_width=8",
            "model.decoder.output_width = 8: has no meaning where no output is read by queries; leave it out, or set "
            "pooling=query of one",
        ),
        (
            "model.inputs.video.num_channels=1",
            "model.inputs.video = {...}: reads arrays of shape (2, 16, 16, 1), but data.inputs.video delivers "
            "(2, 16, 16, 3); leave the sizes out here, or make the two agree",
        ),
    ],
)
def test_a_network_that_cannot_be_is_told_in_one_sentence_of_what_was_typed(override: str, sentence: str) -> None:
    digits = Path(__file__).parents[2] / "configs" / "digits.yaml"
    (problem,) = problems_of(digits, override)
    key, _, told = sentence.partition(" = {...}")
    assert problem.startswith(key)
    assert problem.endswith(told or sentence)
    # A default that nobody typed.
    assert "learned_width" not in problem


def test_sizes_are_written_in_the_data_alone(tmp_path: Path) -> None:
    digits = Path(__file__).parents[2] / "configs" / "digits.yaml"
    run = load(digits, ["data.inputs.audio.log_mel={}", "model.inputs.audio.patch=1"])
    assert run.model.inputs["audio"].shape == run.data.inputs["audio"].shape == (20, 40)
    written = tmp_path / "written.yaml"
    written.write_text(dump(run))
    assert load(written) == run
    # No default of a size stands where the data's is used.
    inputs = yaml.safe_load(written.read_text())["model"]["inputs"]
    assert not {"height", "width", "num_channels", "num_frames"} & {key for of in inputs.values() for key in of}
    larger = load(written, ["data.inputs.image.height=16", "data.inputs.video.num_frames=4"])
    assert larger.model.inputs["image"].shape == (16, 8, 3)
    assert larger.model.inputs["video"].num_frames == 4
    assert "model.inputs.image.height: 8 -> 16" in difference(run, larger)


def test_sizes_may_be_written_in_both_where_they_agree(valid: Path) -> None:
    both = load(valid, ["model.inputs.image.height=8", "model.inputs.image.num_channels=3"])
    assert both == load(valid)


def test_an_input_of_another_modality_than_the_data_is_told(valid: Path) -> None:
    problems = problems_of(valid, "model.inputs.image={}", "model.inputs.image={modality: points, num_points: 3}")
    assert problems == (
        "model.inputs.image.modality = 'points': is points, but data.inputs.image.modality is image; leave this out",
    )


def test_the_data_and_the_network_know_the_same_modalities() -> None:
    for modality in data_catalogue.BY_NAME.keys() | (model_catalogue.BY_NAME.keys() - NETWORK_ALONE):
        section, read = data_catalogue.BY_NAME[modality].lenient(), model_catalogue.BY_NAME[modality]()
        assert read.with_sizes(section.sizes).shape == section.shape, modality
        assert set(section.sizes) <= {field.name for field in fields(read)}, modality
        sized = read.with_sizes(section.sizes)
        unsaid = {key: getattr(read, key) for key in sized.equal_sizes(section.sizes)}
        assert replace(sized, **unsaid) == read, modality
        assert {key for key, _ in read.problems()} == {key for key in section.sizes if key in read.sizes}, modality


def test_a_config_of_another_version_is_refused(valid: Path) -> None:
    (problem,) = problems_of(valid, "version=7")
    assert problem.startswith("version = 7: this release reads version 1")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("a: [", "not YAML"), ("- 3", "expected keys and values, got list"), (None, "no such file")],
)
def test_a_file_that_is_no_config_is_one_problem(tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_text(content)
    (problem,) = problems_of(path)
    assert sentence in problem


def test_an_interpolation_that_leads_nowhere_is_a_problem(valid: Path) -> None:
    (problem,) = problems_of(valid, "model.inputs.image.height=${data.inputs.image.depth}")
    assert "depth" in problem


def test_the_difference_names_each_key_with_both_values(valid: Path) -> None:
    config = load(valid)
    assert difference(config, config) == []
    changed = replace(config, seed=9, train=replace(config.train, steps=5))
    assert difference(config, changed) == ["seed: 3 -> 9", "train.steps: 1000 -> 5"]


def test_configs_load_without_torch() -> None:
    code = "import sys, configs.run; sys.exit('torch' in sys.modules or 'deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", sorted(NAMED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_named_run_is_valid(path: Path) -> None:
    assert load(path).train.steps > 0


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train=many", "train = 'many': expected a section with keys of its own, train.NAME=..., got str"),
        (
            "data.inputs.image.crop=[1]",
            "data.inputs.image.crop = [1]: expected a section with keys of its own, data.inputs.image.crop.NAME=...",
        ),
        (
            "train.steps={a: 1}",
            "train.steps.a = 1: Value '{'a': 1}' of type keys and values could not be converted to Integer",
        ),
        (
            "optimizer.decay_steps=3",
            "optimizer.decay_steps = 3: Invalid value assigned: int is not a list, or tuple; write a list, such as [3]",
        ),
        ("optimizer.freeze=encoder", "str is not a list, or tuple; write a list, such as [encoder]"),
        # A star begins a word of YAML's own.
        ("optimizer.freeze=[*, a.*=3]", 'is not a list, or tuple; write a list, such as ["*", "a.*=3"]'),
        (
            "data.inputs.video={modality: video, height: many}",
            "data.inputs.video.height = 'many': Value 'many' of type 'str' could not be converted to Integer",
        ),
        ("train.steps=" + "9x" * 5_000, "... (10000 characters)"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate = nan: must be a number and at least 0, got nan"),
        ("optimizer.learning_rate=1e999", "optimizer.learning_rate = inf: must be a number"),
        ("optimizer.epsilon=nan", "optimizer.epsilon = nan: must be above 0"),
        ("health.hang_seconds=inf", "health.hang_seconds = inf: must be a number and at least 0"),
        ("model.inputs.image.patch=0", "model.inputs.image.patch = 0: must be at least 1"),
        ("model.outputs.label.loss_weight=inf", "model.outputs.label.loss_weight = inf: must be"),
        ("model.outputs.label.loss_weight=nan", "model.outputs.label.loss_weight = nan: must be"),
        ("data.inputs.image=${seed}", "data.inputs.image = '${seed}': expected a section with keys of its own"),
        ("train.steps=${data}", "train.steps"),
        ("optimizer.decay_steps=[x]", "optimizer.decay_steps = ['x']: Value of another type could not be converted"),
        ("data.labels=[[1]]", "data.labels[0]: expected a single value, got [1]"),
        ("data.labels=[{a: 1}]", "data.labels[0]: expected a single value, got {'a': 1}"),
        (
            "optimizer.freeze={a: 1}",
            "optimizer.freeze.a = 1: optimizer.freeze is a list, such as [...], and has no names",
        ),
        ("model.nested_latents={a: 1}", "model.nested_latents.a = 1: model.nested_latents is a list"),
        ("model.outputs.label.class_weights={a: 1}", ".a = 1: model.outputs.label.class_weights is a list"),
        ("data.labels={a: {b: 1}}", "data.labels.a.b = 1: data.labels is a list"),
        ("data.require=[[image]]", "data.require[0]: expected a single value, got ['image']"),
        (
            "data.modality_dropout={image:0.1}",
            "data.modality_dropout.image:0: expected a single value, got {'1': None}",
        ),
        ("train.steps=???", "train.steps = '???': is left open; write a value"),
        ("data.require=['???']", "data.require = ['???']: is left open; write a value"),
        ("model.num_blocks=1000000000", "model.num_blocks = 1000000000: makes 6000000000 layers of self-attention"),
        ("model.layers_per_block=1000000000", "model.num_blocks = 8: makes 8000000000 layers of self-attention"),
        ("model.num_cross_attends=1000000000", "model.num_cross_attends = 1000000000: must be at most 100000"),
    ],
)
def test_a_wrong_value_is_one_short_sentence_about_its_key(valid: Path, override: str, sentence: str) -> None:
    (problem,) = problems_of(valid, override)
    assert sentence in problem
    assert "Config" not in problem
    assert "\n" not in problem
    assert len(problem) < 500


def test_a_problem_of_a_section_does_not_show_keys_that_were_never_set(valid: Path) -> None:
    problems = problems_of(
        valid,
        "data.inputs.audio={modality: audio, num_samples: 800}",
        "data.inputs.image.height=9",
        "model.inputs.image.height=8",
    )
    assert problems == (
        "data.inputs.audio = {'modality': 'audio', 'num_samples': 800}: is set but model.inputs.audio is not; "
        "set both or neither",
        "model.inputs.image = {'height': 8, 'positio...um_bands': 4}: reads arrays of shape (8, 8, 3), but "
        "data.inputs.image delivers (9, 8, 3); leave the sizes out here, or make the two agree",
    )


def test_a_key_stands_once_in_a_file_however_it_is_spelled(valid: Path) -> None:
    valid.write_text(f"{VALID}train.global_batch: 64\n")
    assert problems_of(valid) == ("train.global_batch: stands 2 times in the file; leave one",)
    valid.write_text(f"{VALID}train.steps: 7\n")
    assert load(valid, ["train.steps=8", "train.steps=9"]).train.steps == 9


def test_a_wrong_value_behind_a_section_that_was_emptied_is_one_problem(valid: Path) -> None:
    with pytest.raises(ConfigError, match="1 problem in") as caught:
        load(valid, ["optimizer={}", "optimizer.warmup_steps=abc"])
    assert "\n  optimizer.warmup_steps = 'abc': " in str(caught.value)


def test_a_seed_is_one_that_the_generators_take(valid: Path) -> None:
    assert load(valid, [f"seed={2**63 - 1}"]).seed == 2**63 - 1
    for seed in (-1, 2**63, 10**30):
        [problem] = problems_of(valid, f"seed={seed}")
        assert problem == f"seed = {seed}: must be from 0 to {2**63 - 1}, got {seed}"


def test_a_run_whose_loss_is_always_0_is_refused(valid: Path) -> None:
    key = f"model.outputs.{next(iter(load(valid).model.outputs))}.loss_weight"
    with pytest.raises(
        ConfigError, match=rf"{re.escape(key)} = 0.*: is 0, as that of every output: .* set one above 0"
    ):
        load(valid, [f"{key}=0"])
    more = f"model.outputs.more={{kind: label, num_classes: {load(valid).model.outputs['label'].num_classes}}}"
    assert load(valid, [f"{key}=0", more]).model.outputs["label"].loss_weight == 0


@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16"])
def test_a_narrow_residual_stream_is_for_bf16_alone(valid: Path, precision: str) -> None:
    narrow = "model.residual_dtype=bf16"
    assert load(valid, [narrow, "train.precision=bf16"]).model.residual_dtype == "bf16"
    [problem] = problems_of(valid, narrow, f"train.precision={precision}")
    assert problem.startswith("model.residual_dtype = 'bf16': bf16 is for train.precision=bf16, which is ")
    assert precision in problem


def test_a_run_that_compiles_what_zero_3_gathers_in_parts_is_refused(valid: Path) -> None:
    [problem] = problems_of(valid, "model.compile=true", "train.zero_stage=3")
    assert problem.startswith("model.compile = True: compiles with train.zero_stage 0, 1 and 2 only")
    for compiles in ("auto", "false"):
        load(valid, [f"model.compile={compiles}", "train.zero_stage=3"])
