"""A run is put together from its configuration: what it leaves, prints and says before its first step."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.run import RunConfig, load
from data_shards.files.plugin_files import PluginError
from data_shards.format import manifest
from data_shards.loading.cuts import Cuts
from data_shards.loading.loader.loader import Loader
from data_shards.loading.quarantine import BadSample, Quarantine
from data_shards.sources import table
from launch.chaos import rank as chaos_rank
from launch.lifecycle import attempts
from launch.lifecycle.fence import SupersededError
from launch.lifecycle.run_folder import RunFolder
from launch.report import status
from launch.run import announcements, composition
from launch.run.creation import open_run
from launch.run.first_cuts import FirstCuts
from launch.run.loaders import EvalSplit, identity, look
from launch.run.origin import Origin, keep
from model.budget import flops
from model.perceiver import Perceiver
from trainer.checkpoint.store import Loaded, Store
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.evaluation.evaluation import Evaluation, evaluate
from trainer.health.run_lock import is_held
from trainer.loop import DivergedError
from trainer.run_state import RunState
from trainer.sinks.sink import RunSink
from trainer.sinks.sink_group import SinkGroup
from trainer.tasks.network_draws import NetworkDraws
from trainer.tasks.objective import objective

Door = Callable[..., list[dict[str, Any]]]

CONFIG = """
data: {inputs: {text: {modality: text, num_bytes: 12}}, lanes: 2, window: 8, num_threads: 1}
model:
  inputs: {text: {max_tokens: 12, embedding_width: 8}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 2
  latent_width: 8
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 2, global_batch: 8, log_every_steps: 1}
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run of two steps of text, with 20 samples to train on and 5 to evaluate."""
    rows = [{"text": f"{n} times", "label": n % 3, "split": "test" if n % 5 == 0 else "train"} for n in range(25)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "text.yaml").write_text(CONFIG)
    return load(tmp_path / "text.yaml", [f"data.shards={tmp_path}/shards"])


def messages(folder: RunFolder) -> list[str]:
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    return [line["message"] for line in lines if line["kind"] == "event"]


def test_a_training_comes_by_every_place_where_a_campaign_puts_faults(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def told(place: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*given: Any, **named: Any) -> Any:  # noqa: ANN401  # whatever is called
            seen.append(place)
            return call(*given, **named)

        return calling

    for place, (owner, name) in chaos_rank.places().items():
        monkeypatch.setattr(owner, name, told(place, getattr(owner, name)))
    assert composition.main(config, tmp_path / "run") == 0
    assert set(seen) == set(chaos_rank.places())
    assert seen.count("step") == 2


def test_a_run_trains_to_its_end_leaves_all_that_it_is_known_by_and_is_not_trained_twice(
    config: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "a run")
    assert composition.main(config, Path("a run")) == 0
    told = capfd.readouterr().out.splitlines()
    assert told[-2] == "finished at step 2; curves: tensorboard --logdir 'a run/tensorboard'"
    assert told[-1] == "evaluate: perceiver eval 'a run'"
    names = ["step_00000000", "step_00000002"]
    assert sorted(path.name for path in folder.checkpoints_folder.iterdir()) == names
    assert list(folder.tensorboard_folder.iterdir())
    assert messages(folder) == [
        "computes in fp32 on the CPU, where every kernel is deterministic",
        "split 'test' is evaluated at the end",
        "an epoch of 2 steps drops 4 samples, different ones each epoch",
    ]
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(line["flop_utilisation"] > 0 and line["bad_samples"] == 0 for line in steps)
    [evaluation] = [line for line in lines if line["kind"] == "evaluation"]
    assert (evaluation["step"], evaluation["samples"]) == (2, 5)
    [entry] = attempts.times(folder)
    assert (entry.ended, entry.last_step) == ("finished", 2)
    assert min(entry.seconds[part] for part in ("start_up", "compute", "evaluation", "save")) > 0
    assert [(attempt.status, attempt.last_step) for attempt in attempts.history(folder)] == [(0, 2)]
    assert not is_held(folder.lock_path)

    assert composition.main(config, folder.path, as_json=True) == 0
    told = capfd.readouterr().out.splitlines()
    assert json.loads(told[-1]) == {"outcome": "finished", "step": 2, "run": str(folder.path)}
    assert not any("evaluate: " in line for line in told)
    assert folder.metrics_path.read_text().count('"kind": "train"') == 2
    assert attempts.current(folder) == 2


def test_a_run_that_changed_no_weight_is_refused_with_status_2_and_is_not_finished(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    infinite = replace(config.model.outputs["label"], loss_weight=3e38)
    spoiled = replace(config, model=replace(config.model, outputs={"label": infinite}))
    with pytest.raises(DivergedError, match="0 of 2 steps changed the weights"):
        composition.main(spoiled, folder.path)
    assert attempts.history(folder)[-1].status == 2
    assert [path.name for path in folder.checkpoints_folder.iterdir()] == ["step_00000000"]
    capsys.readouterr()
    assert status.main([folder.path]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (told["state"], told["step"], told["skipped"].split()) == ("unfinished", "2", ["steps", "2"])
    assert told["reason"] == "ended with status 2; correct what the log says first"


def test_a_finished_run_says_how_many_of_its_steps_were_skipped(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announcements.tell_end(config, RunFolder(tmp_path), "finished", RunState(5, skipped_steps=3), "", as_json=False)
    assert capsys.readouterr().out.startswith("finished at step 5, of which 3 were skipped (not finite); curves: ")


def test_a_run_that_is_stopped_says_by_what_and_asks_to_be_started_again(
    config: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, first_cuts = list[int](), composition.FirstCuts

    def noted(loader: Any, data: Any, num_steps: int, *words: Any) -> FirstCuts:  # noqa: ANN401  # handed on
        counted.append(num_steps)
        return first_cuts(loader, data, num_steps, *words)

    monkeypatch.setattr(composition, "FirstCuts", noted)
    folder = RunFolder(tmp_path / "run")
    short = replace(config, train=replace(config.train, time_limit_minutes=1e-9))
    assert composition.main(short, folder.path) == 85
    assert "stopped by time limit after step 1 of 2; the same command resumes it\n" in capfd.readouterr().out
    [entry] = attempts.times(folder)
    assert entry.ended == "preempted (time limit)"
    assert attempts.history(folder)[0].status == 85
    assert composition.main(config, folder.path) == 0
    assert [entry.last_step for entry in attempts.times(folder)] == [1, 2]
    assert counted == [2, 1], "what is cut is counted in the steps that are left"


@pytest.fixture
def fitted(door: Door) -> list[dict[str, Any]]:
    """What the loop of each training is given; it makes no step."""

    def fit(state: RunState, **_: object) -> tuple[str, RunState]:
        return "finished", state

    return door("launch.run.composition.fit", fit)


def test_the_loop_is_given_the_parts_that_the_configuration_describes(
    config: RunConfig, tmp_path: Path, fitted: list[dict[str, Any]], door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = door("launch.run.composition.measured_peak_flops", 7e9)
    goals = []
    monkeypatch.setattr(
        composition, "objective", lambda *words, **named: goals.append(named) or objective(*words, **named)
    )
    config = replace(
        config,
        seed=3,
        train=replace(config.train, label_smoothing=0.25, activation_memory_gib=2.0),
        health=replace(config.health, hang_seconds=77.0, compile_seconds=99.0),
        profile=replace(config.profile, first_step=5),
    )
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder, more=lambda made: keep(Origin("another", 4, 3), made))
    assert composition.main(config, folder.path) == 0
    [given] = fitted
    assert given["begun"] == RunState(4, skipped_steps=3)
    assert given["config"] == replace(config.train, precision="fp32")
    assert (given["health"], given["state"].step) == (config.health, 0)
    assert given["evaluate"] is not None
    hang, profiler, meter = given["hang"], given["profiler"], given["meter"]
    assert (hang._folder, hang._seconds, hang._compile_seconds) == (folder.watch_folder, 77.0, 99.0)
    assert (profiler._folder, profiler._config) == (folder.profile_folder, config.profile)
    assert meter._work.flops_per_sample == 3 * flops.total(flops.network_cost(config.model)).flops
    assert (meter._work.tokens_per_sample, meter._work.peak_flops) == (12, 7e9)
    assert [peak["dtype"] for peak in peaks] == [torch.float32]
    assert goals[0] == {"label_smoothing": 0.25, "seed": 3, "draws": NetworkDraws(3)}
    weights = Perceiver(config.model, seed=3).state_dict()
    found = given["engine"].network.module.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in weights.items())
    assert given["store"]._identity == identity(config)
    assert "activations fit into 2 GiB with model.activation_checkpointing=none" in messages(folder)
    assert attempts.times(folder)[0].seconds["start_up"] > 0


def test_half_precision_is_measured_by_its_own_peak_and_a_compiled_network_is_watched(
    config: RunConfig, tmp_path: Path, fitted: list[dict[str, Any]], door: Door
) -> None:
    peaks, told = (
        door("launch.run.composition.measured_peak_flops", 7e9),
        door("launch.run.composition.told_of_compiling", nullcontext()),
    )
    half = replace(config, train=replace(config.train, precision="bf16"))
    composition.main(half, tmp_path / "half")
    assert told == []
    assert [peak["dtype"] for peak in peaks] == [torch.bfloat16]
    composition.main(replace(config, model=replace(config.model, compile=True)), tmp_path / "compiled")
    assert [each["hang"] for each in told] == [fitted[1]["hang"]]


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("mend it")])
def test_an_error_ends_the_attempt_with_its_words_and_a_lost_host_s_run_is_taken_over_where_that_is_asked_for(
    config: RunConfig, tmp_path: Path, door: Door, error: Exception
) -> None:
    def fail(**_: object) -> None:
        raise error

    door("launch.run.composition.fit", fail)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(type(error), match=str(error)):
        composition.main(config, folder.path)
    assert attempts.times(folder)[0].ended == f"failed: {error}"
    assert attempts.history(folder)[0].status == (2 if isinstance(error, ValueError) else 1)
    assert not is_held(folder.lock_path)
    folder.lock_path.write_text('{"host": "lost", "pid": 1}')
    with pytest.raises(ValueError, match="--take-over"):
        composition.main(config, folder.path)
    with pytest.raises(type(error), match=str(error)):
        composition.main(config, folder.path, take_over=True)


def test_a_run_without_a_split_to_evaluate_says_so_and_trains(
    config: RunConfig, tmp_path: Path, fitted: list[dict[str, Any]]
) -> None:
    there = manifest.read(tmp_path / "shards")
    manifest.write(replace(there, splits={"train": there.splits["train"]}), tmp_path / "shards")
    alone = replace(config, checkpoint=replace(config.checkpoint, keep_best=False))
    assert composition.main(alone, tmp_path / "run") == 0
    assert fitted[0]["evaluate"] is None
    assert any(message.startswith("nothing is evaluated") for message in messages(RunFolder(tmp_path / "run")))


def test_an_evaluation_is_of_all_samples_of_the_split_by_the_network_that_trains(
    config: RunConfig, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = door("launch.run.composition.shown", {"inputs": "a picture"})
    found: list[Any] = []
    clips: list[int] = []

    def cut(*words: Any, num_clips: int) -> Evaluation:  # noqa: ANN401  # handed on
        clips.append(num_clips)
        return replace(evaluate(*words, num_clips=num_clips), cuts=Cuts({"text": (2, 5)}))

    def fit(evaluate: Callable[[], Evaluation], state: RunState, engine: Engine, **_: object) -> tuple[str, RunState]:
        found.extend((evaluate(), engine.network))
        evaluate()
        return "finished", state

    door("launch.run.composition.fit", fit)
    monkeypatch.setattr(composition, "evaluate", cut)
    config = replace(config, checkpoint=replace(config.checkpoint, best_by="label/accuracy"))
    composition.main(config, tmp_path / "run")
    assert (found[0].samples, found[0].pictures) == (5, {"inputs": "a picture"})
    assert (found[0].decided_by, clips) == ("label/accuracy", [1, 1])
    told = [message for message in messages(RunFolder(tmp_path / "run")) if message.startswith("split 'test': ")]
    assert told == ["split 'test': 2 of 5 samples of input text were longer than 12 bytes and were cut"]
    del drawn[1:]
    assert [each["network"] for each in drawn] == [found[1]]
    assert len([key for key in drawn[0]["batch"].keys if key]) == 5


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def write(self, kind: str, record: dict[str, Any]) -> None:
        assert (kind, record["step"]) == ("event", 4)
        self.messages.append(record["message"])

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Steps:
    """An order as far as it is told of."""

    steps_per_epoch: int
    num_dropped: int


def test_what_a_user_should_know_before_the_first_step_is_told_and_nothing_else() -> None:
    told, state = Kept(), RunState(step=4)
    announcements.announce(SinkGroup([told]), state, None, Steps(7, 0), [], halved=0)
    assert told.messages == []
    loaded = Loaded(state, Path(), ("a is cut", "b is gone"))
    announcements.announce(SinkGroup([told]), state, loaded, Steps(7, 3), ["2 have no sound"], halved=5)
    assert told.messages == [
        "skipped a damaged checkpoint: a is cut",
        "skipped a damaged checkpoint: b is gone",
        "2 have no sound",
        "an epoch of 7 steps drops 3 samples, different ones each epoch",
        "out of memory: the micro-batch is now 5; the global batch and the results stay",
    ]


@pytest.mark.parametrize(("reason", "by"), [("SIGTERM", "SIGTERM"), ("", "another rank")])
def test_who_stopped_a_run_is_told(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, by: str
) -> None:
    folder, state = RunFolder(tmp_path), RunState(step=1)
    announcements.tell_end(config, folder, "preempted", state, reason, as_json=False)
    assert capsys.readouterr().out == f"stopped by {by} after step 1 of 2; the same command resumes it\n"
    announcements.tell_end(config, folder, "preempted", state, reason, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"outcome": "preempted", "step": 1, "run": str(tmp_path)}


def test_the_first_rank_alone_counts_the_bad_samples(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    Quarantine(folder.quarantine_path, 1.0, {("train", "", ""): 10}).add(BadSample("a", "b", "train"))
    ranks = [World(rank, 2, rank, torch.device("cpu")) for rank in (0, 1)]
    assert [composition._num_bad(folder, world) for world in ranks] == [1, 0]


def test_a_start_prepares_its_arithmetic_and_closes_all_that_it_opened(
    config: RunConfig, tmp_path: Path, fitted: list[dict[str, Any]], door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    for owner in (Engine, Store, SinkGroup, World):
        close = owner.close

        def noted(self: object, close: Callable[[Any], None] = close, name: str = owner.__name__) -> None:
            closed.append(name)
            close(self)

        monkeypatch.setattr(owner, "close", noted)
    applied, fits = door("trainer.engine.arithmetic.apply", None), door("launch.run.composition.fitting", None)
    looked, stops = door("launch.run.composition.look", look), []
    opened, held = door("launch.run.composition.open_run", open_run), list[dict[str, Any]]()
    large = door("launch.run.composition.refuse_large", None)
    claim = composition.Claim
    monkeypatch.setattr(composition, "Claim", lambda *words, **named: held.append(named) or claim(*words, **named))
    stop_request = composition.StopRequest
    monkeypatch.setattr(composition, "StopRequest", lambda *words: stops.append(words) or stop_request(*words))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    config = replace(config, train=replace(config.train, micro_batch=4, time_limit_minutes=7.0))
    folder = RunFolder(tmp_path / "run")
    beats: Any = SimpleNamespace()
    assert composition.main(config, folder.path, heartbeat=beats) == 0
    assert held == [{"take_over": False, "heartbeat": beats}]
    assert [call["places"].found for call in opened] == [looked[0]["places"].found]
    assert [call["network"] for call in large] == [replace(config.model, compile=False)]
    assert fitted[0]["begun"] == RunState(), "a run that is no fork begins with nothing"
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG", "") == ":4096:8"
    assert [each["device"].type for each in applied] == ["cpu"]
    assert fits == [], "what fits into a GPU was tried without one"
    assert closed == ["SinkGroup", "Store", "Engine", "World"]
    assert stops == [(folder.stop_path, 420.0)]
    assert len(looked) == 1
    assert not any(message.startswith("out of memory") for message in messages(folder))
    guard = fitted[0]["store"]._guard
    guard()
    attempts.begin(folder, job_id="", nodes=["elsewhere"])
    with pytest.raises(SupersededError):
        guard()


def test_what_a_loader_left_out_is_told_of_training_and_of_the_evaluation(
    config: RunConfig, tmp_path: Path, fitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, evaluated = composition.train_loader, composition.open_eval_split

    def without_some(*words: Any) -> Loader:  # noqa: ANN401
        loader = trained(*words)
        loader.left_out = ("2 of training",)
        return loader

    def without_others(*words: Any) -> EvalSplit:  # noqa: ANN401
        split = evaluated(*words)
        split.loader.left_out = ("1 of the evaluation",)
        return split

    monkeypatch.setattr(composition, "train_loader", without_some)
    monkeypatch.setattr(composition, "open_eval_split", without_others)
    composition.main(config, tmp_path / "run")
    assert {"2 of training", "1 of the evaluation"} <= set(messages(RunFolder(tmp_path / "run")))


def test_a_sink_of_a_plug_in_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    class Broken(RunSink):
        def __init__(self, run: Path, step: int) -> None:
            raise KeyError(f"{run.name} at {step}")

        def write(self, kind: str, record: object) -> None:
            pass

    with pytest.raises(PluginError, match="run at 4"):
        composition._own_sink(Broken, RunFolder(tmp_path / "run"), RunState(step=4))
