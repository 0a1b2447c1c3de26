"""A run's folder is there as a whole or not at all, and a start that was refused or killed does not block the next."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from warm_start import finished

from configs.run import RunConfig, dump, load
from data_shards.loading.shard_folders import Places
from launch.lifecycle import fence
from launch.lifecycle.holder import refuse_if_trained
from launch.lifecycle.run_folder import RunFolder
from launch.run import creation
from launch.run.creation import open_run, with_choices
from launch.run.frozen_code import changed_files
from model.budget.activation_memory import activation_bytes
from model.budget.plan import POLICIES
from trainer.distributed.world import World
from trainer.health.run_lock import RunLock
from trainer.sinks.writers import JsonLines

Door = Callable[..., list[dict[str, Any]]]
T = TypeVar("T")
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
# Makes a run again and again: in a child that kills itself at a later change of the folder each time, then once more.
KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from configs.run import load
from launch.run import frozen_code
from launch.lifecycle.run_folder import RunFolder
from launch.run.frozen_code import changed_files
from launch.run.creation import open_run, with_choices

# No power is cut: what a killed process has written, the kernel keeps.
os.fsync = lambda _: None
# Little code: every step of the making is met, and most of it is no longer the copying of files.
all_code, few = frozen_code.installed_folder(), Path(sys.argv[1]) / "few"
for package in frozen_code.PACKAGES:
    (few / package).mkdir(parents=True)
    shutil.copy(all_code / package / "__init__.py", few / package)
frozen_code.installed_folder = lambda: few
place, is_there, config = Path(sys.argv[1]), sys.argv[2] == "True", load(Path(sys.argv[3]), sys.argv[4:])

def make(number, killed_at, counted_in=None):
    folder = RunFolder(place / str(number) / "run")
    (folder.path if is_there else folder.path.parent).mkdir(parents=True)
    child = os.fork()
    if child:
        return folder, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0
    def count(event, arguments):
        nonlocal calls
        if event in ("os.mkdir", "os.rename", "open", "os.remove") and str(folder.path.parent) in str(arguments):
            calls += 1
            if calls == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    open_run(config, folder)
    if counted_in:
        counted_in.write_text(str(calls))
    os._exit(0)

counted = place / "counted"
make(0, 0, counted)
num_calls = int(counted.read_text())
points = sorted({1, 2, *range(3, num_calls, num_calls // 5), *range(num_calls - 3, num_calls + 1)})
for number in points:
    folder, status = make(number, number)
    is_half = folder.exists and bool(changed_files(folder.code_folder))
    open_run(config, folder)
    whole = load(folder.config_path) == config and not changed_files(folder.code_folder)
    beside = sorted(path.name for path in folder.path.parent.iterdir())
    print(json.dumps([number, status, is_half, whole, beside]), flush=True)
"""


@pytest.fixture
def config(shards: Path) -> RunConfig:
    return load(CONFIG, [f"data.shards={shards}"])


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [False, True])
def test_a_start_that_is_killed_anywhere_while_it_makes_the_folder_blocks_no_other(
    shards: Path, tmp_path: Path, is_there: bool
) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "made"), str(is_there), str(CONFIG), f"data.shards={shards}"]
    result = finished(words)
    points = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert len(points) >= 10
    for number, status, is_half, whole, beside in points:
        assert status == -signal.SIGKILL, f"call {number} was not reached"
        assert not is_half, f"killed at call {number}, the run was there without all of its code"
        assert whole, f"killed at call {number}, the next start made something else"
        assert beside == ["run"], f"killed at call {number}, something stayed beside the run"


def test_a_refused_start_leaves_nothing_and_the_corrected_one_is_taken(config: RunConfig, tmp_path: Path) -> None:
    for folder in (RunFolder(tmp_path / "deep" / "run"), RunFolder(tmp_path / "there")):
        if folder.path.name == "there":
            folder.path.mkdir()
        for wrong in ("train.global_batch=128", "train.global_batch=80"):
            with pytest.raises(ValueError, match="do not fill one global batch"):
                open_run(load(CONFIG, [f"data.shards={config.data.shards}", wrong]), folder)
            assert not folder.path.exists() or not any(folder.path.iterdir())
        open_run(config, folder)
        assert folder.exists


def test_the_first_start_chooses_precision_and_compiling_and_no_other_device_changes_them(
    config: RunConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    # As `perceiver submit` leaves it on a machine without a GPU.
    assert load(folder.config_path).train.precision == "auto"
    assert load(folder.config_path).model.compile == "auto"
    gpu, cpu = (World(0, 1, 0, torch.device(kind)) for kind in ("cuda", "cpu"))
    assert with_choices(config, folder, gpu).train.precision == "bf16"
    assert load(folder.config_path).train.precision == "bf16"
    assert load(folder.config_path).model.compile is True
    (folder.checkpoints_folder / "step_00000001").mkdir(parents=True)
    # The file that the run was made from is no other configuration.
    open_run(config, folder)
    on_cpu = with_choices(config, folder, cpu)
    assert (on_cpu.train.precision, on_cpu.model.compile) == ("bf16", True)
    with pytest.raises(ValueError, match=r"train\.precision: 'bf16' -> 'fp32'"):
        open_run(load(CONFIG, [f"data.shards={config.data.shards}", "train.precision=fp32"]), folder)


@pytest.mark.parametrize(("override", "compiles"), [("train.zero_stage=3", False), ("train.zero_stage=2", True)])
def test_on_a_gpu_layers_are_compiled_but_where_their_weights_are_partitioned(
    config: RunConfig, tmp_path: Path, override: str, compiles: bool
) -> None:
    folder, gpu = RunFolder(tmp_path / "run"), World(0, 1, 0, torch.device("cuda"))
    started = load(CONFIG, [f"data.shards={config.data.shards}", override])
    open_run(started, folder)
    assert with_choices(started, folder, gpu).model.compile is compiles


def test_a_number_of_ranks_that_does_not_divide_the_batch_makes_no_folder(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        open_run(config, folder, 3)
    assert not any(path.name.startswith(".perceiver") or path.name == "run" for path in tmp_path.iterdir())


def test_a_run_is_refused_for_the_memory_of_the_device_that_it_will_train_on(config: RunConfig, tmp_path: Path) -> None:
    fp32 = min(activation_bytes(config.model, policy, device="cpu") for policy in POLICIES)
    # bf16, which `auto` means on a GPU, needs less.
    train = replace(
        config.train, precision="auto", activation_memory_gib=0.95 * config.train.global_batch * fp32 / 2**30
    )
    config = replace(config, train=train)
    with pytest.raises(ValueError, match=r"activation_memory_gib: no policy fits"):
        open_run(config, RunFolder(tmp_path / "here"), 1, "cpu")
    open_run(config, RunFolder(tmp_path / "there"), 1, "cuda")
    # Of a fork nobody knows yet how many ranks of what will train it.
    open_run(config, RunFolder(tmp_path / "anywhere"))
    assert RunFolder(tmp_path / "there").exists
    assert RunFolder(tmp_path / "anywhere").exists


def test_a_run_that_has_not_begun_takes_another_configuration(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    folder.metrics_path.write_text('{"kind": "event", "step": 0, "message": "leaves out 3 samples"}\n')
    folder.quarantine_path.write_text("{}\n")
    other = load(CONFIG, [f"data.shards={config.data.shards}", "seed=7"])
    open_run(other, folder)
    assert load(folder.config_path) == other
    assert not folder.quarantine_path.exists()
    assert "had not begun; it is changed:\n  seed: 0 -> 7" in capsys.readouterr().err


@pytest.mark.parametrize("begun", ["checkpoint", "step", "holder"])
def test_a_run_that_has_begun_or_is_being_started_does_not(config: RunConfig, tmp_path: Path, begun: str) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    if begun == "checkpoint":
        (folder.checkpoints_folder / "step_00000000").mkdir()
    elif begun == "step":
        folder.metrics_path.write_text(json.dumps({"kind": "train", "step": 1}) + "\n")
    lock = RunLock(folder.lock_path)
    if begun == "holder":
        lock.__enter__()
    try:
        with pytest.raises(ValueError, match=r"another configuration|trains in this run"):
            open_run(load(CONFIG, [f"data.shards={config.data.shards}", "seed=7"]), folder)
    finally:
        lock.__exit__()
    assert load(folder.config_path) == config


def test_a_run_whose_checkpoints_are_on_a_disk_that_is_away_does_not_begin_anew(
    config: RunConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    folder.metrics_path.write_text(json.dumps({"kind": "train", "step": 1}) + "\n")
    folder.checkpoints_folder.rmdir()
    folder.checkpoints_folder.symlink_to(tmp_path / "scratch")
    with pytest.raises(ValueError, match=rf"run/checkpoints: is a link to {tmp_path}/scratch, which is not there"):
        open_run(config, folder)
    assert b'"train"' in folder.metrics_path.read_bytes()


def test_what_somebody_else_put_into_the_folder_is_refused_and_stays(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"is not empty and has no config.yaml"):
        open_run(config, RunFolder(tmp_path / "run"))
    assert (tmp_path / "run" / "thesis.tex").read_text() == "precious"


def test_the_folders_above_a_new_run_are_made_too(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "of_today" / "run")
    open_run(config, folder, more=lambda made: (made.checkpoints_folder / "step_00000005").mkdir())
    assert load(folder.config_path) == config
    assert [path.name for path in folder.checkpoints_folder.iterdir()] == ["step_00000005"]
    assert [path.name for path in folder.path.parent.iterdir()] == ["run"], "what was made beside it stayed"


def test_the_folder_of_a_fresh_disk_is_taken(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run" / "lost+found").mkdir(parents=True)
    open_run(config, RunFolder(tmp_path / "run"))
    assert RunFolder(tmp_path / "run").exists


def test_a_disk_that_is_full_while_the_folder_is_made_is_told_and_leaves_nothing(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(creation, "copy_code", full)
        with pytest.raises(ValueError, match=r"run: cannot be written \(No space left on device\)"):
            open_run(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    open_run(config, RunFolder(tmp_path / "run"))


@pytest.mark.parametrize("below", ["run", "deep/run"])
def test_a_place_that_cannot_be_written_is_named_as_it_was_asked_for(
    config: RunConfig, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=rf"file/{below}: cannot be written \(Not a directory\)"):
        open_run(config, RunFolder(tmp_path / "file" / below))


def test_of_two_first_starts_one_makes_the_run_and_the_other_is_told(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")

    def be_overtaken(_: RunFolder) -> None:
        folder.create()
        folder.config_path.write_text(dump(load(CONFIG, ["seed=7"])))

    with pytest.raises(ValueError, match="another start has just made this run; start again"):
        open_run(config, folder, more=be_overtaken)
    assert load(folder.config_path).seed == 7
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_a_process_of_the_same_id_left_is_not_published(config: RunConfig, tmp_path: Path) -> None:
    left = RunFolder(tmp_path / creation.hidden_name(os.getpid()))
    left.make()
    (left.code_folder / "launch").mkdir(parents=True)
    (left.code_folder / "launch" / "old.py").write_text("")
    open_run(config, RunFolder(tmp_path / "run"))
    assert not changed_files(tmp_path / "run" / "code")


def test_a_making_that_another_process_is_at_is_left_alone(config: RunConfig, tmp_path: Path) -> None:
    alive, elsewhere = tmp_path / creation.hidden_name(os.getppid()), tmp_path / ".perceiver-elsewhere-1.new"
    alive.mkdir()
    elsewhere.mkdir()
    open_run(config, RunFolder(tmp_path / "run"))
    assert alive.is_dir()
    assert elsewhere.is_dir()


def test_what_does_not_decide_the_result_changes_at_a_resume_and_is_recorded(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    complete_checkpoint(folder.checkpoints_folder, 20)
    logged = '{"kind": "train", "step": 20, "loss": 1.0}\n'
    folder.metrics_path.write_text(f'damaged\rhere\n{logged}{{"kind": "train", "st')
    overrides = [f"data.shards={config.data.shards}", "data.num_threads=3", "train.log_every_steps=1"]
    changed = load(CONFIG, overrides)
    open_run(changed, folder)
    assert load(folder.config_path) == changed
    told = (
        "resumes with the same result; it is changed:\n  data.num_threads: 2 -> 3\n  train.log_every_steps: 10 -> 1\n"
    )
    assert capsys.readouterr().err == f"note: {folder.path} {told}"
    JsonLines(folder.metrics_path, 20).close()
    first, event = (json.loads(line) for line in folder.metrics_path.read_bytes().split(b"\n")[1:3])
    assert first == json.loads(logged)
    assert (event["kind"], event["step"]) == ("event", 20)
    assert event["message"].endswith("data.num_threads: 2 -> 3; train.log_every_steps: 10 -> 1")

    open_run(changed, folder)
    assert folder.metrics_path.read_bytes().count(b"\n") == 3
    assert capsys.readouterr().err == "", "a start that changes nothing has nothing to say"


def test_what_decides_the_result_does_not_change_and_fork_is_named(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    complete_checkpoint(folder.checkpoints_folder, 20)
    before = folder.config_path.read_bytes()
    overrides = [f"data.shards={config.data.shards}", "data.num_threads=3", "optimizer.learning_rate=1"]
    with pytest.raises(ValueError, match=r"another configuration.*perceiver fork .*/run NEW key=value") as caught:
        open_run(load(CONFIG, overrides), folder)
    assert str(caught.value).splitlines()[1:] == ["  optimizer.learning_rate: 0.002 -> 1.0"]
    assert folder.config_path.read_bytes() == before
    assert not folder.metrics_path.exists()


def test_a_command_that_is_named_as_a_remedy_can_be_pasted_whatever_the_name(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a run; $(touch x) 'b'")
    open_run(config, folder)
    complete_checkpoint(folder.checkpoints_folder, 20)
    with pytest.raises(ValueError, match="another configuration") as caught:
        open_run(load(CONFIG, [f"data.shards={config.data.shards}", "seed=5"]), folder)
    [command] = re.findall(r"\((perceiver train .*)\), make", str(caught.value))
    assert shlex.split(command) == ["perceiver", "train", str(folder.config_path), "--run", str(folder.path)]
    with RunLock(folder.lock_path), pytest.raises(ValueError, match="trains in this run") as caught:
        refuse_if_trained(folder)
    [command] = re.findall(r"`(perceiver stop .*)`", str(caught.value))
    assert shlex.split(command) == ["perceiver", "stop", str(folder.path)]


def test_a_run_that_is_trained_does_not_change_under_its_ranks(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    complete_checkpoint(folder.checkpoints_folder, 20)
    before = folder.config_path.read_bytes()
    changed = load(CONFIG, [f"data.shards={config.data.shards}", "data.num_threads=3"])
    with RunLock(folder.lock_path), pytest.raises(ValueError, match=r"trains in this run; .*`perceiver stop "):
        open_run(changed, folder)
    assert (folder.config_path.read_bytes(), folder.metrics_path.exists()) == (before, False)


class Opened:
    """A loader that notes when it is closed."""

    def __init__(self, closed: list[str], name: str) -> None:
        self._closed, self._name = closed, name

    def close(self) -> None:
        self._closed.append(self._name)


def test_a_start_asks_what_it_must_and_no_more(
    config: RunConfig, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, queued = (
        door(f"launch.run.creation.{name}", None) for name in ("_refuse_what_cannot_train", "refuse_if_queued")
    )
    named, asked = door("launch.run.creation.label_names", ()), list[RunFolder]()
    monkeypatch.setattr(RunFolder, "check_space", lambda folder: asked.append(folder))
    folder, places = RunFolder(tmp_path / "run"), Places(config.data)

    def counts() -> tuple[int, ...]:
        found = tuple(len(each) for each in (tried, named, queued, asked))
        for each in (tried, named, queued, asked):
            each.clear()
        return found

    open_run(config, folder, 4, places=places)
    [call] = tried
    assert (call["world_size"], call["places"], call["folder"]) == (4, places, folder)
    assert counts() == (1, 1, 1, 0)
    open_run(config, folder)
    assert counts() == (0, 1, 1, 1)
    # A rank whose attempt a supervisor began is itself of the job that is queued.
    monkeypatch.setenv(fence.NUMBER, "1")
    other = load(CONFIG, [f"data.shards={config.data.shards}", "seed=7"])
    open_run(other, folder)
    assert counts() == (1, 1, 0, 1)


def test_what_cannot_train_is_found_without_processes_of_its_own(config: RunConfig, tmp_path: Path, door: Door) -> None:
    closed: list[str] = []
    config = replace(config, data=replace(config.data, num_processes=2), train=replace(config.train, global_batch=32))
    trained = door("launch.run.creation.train_loader", Opened(closed, "train"))
    evaluated = door("launch.run.creation.open_eval_split", SimpleNamespace(loader=Opened(closed, "test")))
    door("launch.run.creation.eval_split", ("test", "at the end"))
    checks = [door(f"launch.run.{name}", None) for name in ("creation.check_evaluation", "trained_parameters.check")]
    fits = door("launch.run.creation.planned", None)
    folder, places = RunFolder(tmp_path / "run"), Places(config.data)
    creation._refuse_what_cannot_train(config, folder, 2, "cuda", places)
    quick = replace(config, data=replace(config.data, num_processes=0))
    common = {
        "config": quick,
        "quarantine": folder.quarantine_path,
        "world": World(0, 2, 0, torch.device("cpu")),
        "places": places,
    }
    assert (trained, evaluated) == ([common], [common | {"name": "test"}])
    assert closed == ["train", "test"]
    assert [len(each) for each in (*checks, fits)] == [1, 1, 1]
    assert (fits[0]["world_size"], fits[0]["device"]) == (2, "cuda")
    with pytest.raises(ValueError, match="3 processes"):
        creation._refuse_what_cannot_train(config, folder, 3, "cpu", places)


@pytest.mark.parametrize(("patience", "is_refused"), [(0, False), (1, True)])
def test_when_a_run_is_evaluated_decides_its_end_where_its_evaluations_end_it(
    config: RunConfig, tmp_path: Path, door: Door, patience: int, is_refused: bool
) -> None:
    door("launch.run.creation._refuse_what_cannot_train", None)
    folder = RunFolder(tmp_path / "run")
    best = replace(config.checkpoint, keep_best=True)
    config = replace(config, checkpoint=best, train=replace(config.train, patience=patience))
    open_run(config, folder)
    complete_checkpoint(folder.checkpoints_folder, 1)
    later = replace(config, train=replace(config.train, evaluate_every_steps=7))
    told: AbstractContextManager[object]
    told = pytest.raises(ValueError, match=r"train\.evaluate_every_steps: \d+ -> 7") if is_refused else nullcontext()
    with told:
        open_run(later, folder)


def test_a_run_that_says_auto_has_what_was_chosen_for_it_and_another_what_it_says(config: RunConfig) -> None:
    def with_(precision: str, compiles: bool | str) -> RunConfig:
        return creation._with(config, precision, compiles)  # type: ignore[arg-type]  # one of the kinds

    run = with_("bf16", True)
    for asked, expected in (
        (("auto", "auto"), ("bf16", True)),
        (("fp32", "auto"), ("fp32", True)),
        (("auto", False), ("bf16", False)),
    ):
        assert creation._as_chosen(with_(*asked), run) == with_(*expected)


def test_a_rank_that_is_not_the_first_writes_no_choice_and_a_choice_is_written_once(
    config: RunConfig, tmp_path: Path
) -> None:
    class Second(World):
        def broadcast(self, item: T) -> T:
            assert item == (None, None)
            return (("bf16", True), None)  # type: ignore[return-value]  # what the first rank says

    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    there = with_choices(config, folder, Second(1, 2, 1, torch.device("cuda")))
    assert (there.train.precision, there.model.compile) == ("bf16", True)
    assert load(folder.config_path).train.precision == "auto"
    first = World(0, 1, 0, torch.device("cpu"))
    here = with_choices(config, folder, first)
    assert (here.train.precision, here.model.compile) == ("fp32", False)
    written = folder.config_path.stat().st_ino
    assert with_choices(config, folder, first) == here
    assert folder.config_path.stat().st_ino == written


def test_a_copy_of_the_code_that_somebody_removed_is_made_again_and_other_code_is_named(
    config: RunConfig, tmp_path: Path, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    shutil.rmtree(folder.code_folder)
    open_run(config, folder)
    assert not changed_files(folder.code_folder)
    assert capsys.readouterr().err == ""
    for files, listed in (
        (list("ab"), "a, b"),
        (list("abcde"), "a, b, c, d, e"),
        (list("abcdef"), "a, b, c, d, e and more"),
    ):
        door("launch.run.creation.changed_files", files)
        open_run(config, folder)
        assert capsys.readouterr().err == (
            f"note: the code that runs differs from the run's own copy in {listed}; to run that copy: cd "
            f"{folder.code_folder} && python -m launch train {folder.config_path} --run {folder.path}\n"
        )


def test_a_new_run_says_what_is_to_be_noted_of_its_inputs(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = config.data.ordered_inputs["image"]
    monkeypatch.setattr(type(image), "notes", lambda section: ["one", "two"] if section is image else [])
    for _ in range(2):
        open_run(config, RunFolder(tmp_path / "run"))
    assert capsys.readouterr().err == "note: data.inputs.image: one\nnote: data.inputs.image: two\n"


def test_a_run_that_has_not_begun_gets_the_names_and_files_of_its_other_data(
    config: RunConfig, tmp_path: Path, door: Door
) -> None:
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    kept = [
        door(f"{name}.keep", None)
        for name in ("launch.run.trained.class_names", "configs.input_files", "launch.run.initial_weights")
    ]
    other, places = load(CONFIG, [f"data.shards={config.data.shards}", "seed=7"]), Places(config.data)
    open_run(other, folder, places=places)
    assert [[call["config"] for call in calls] for calls in kept] == [[other]] * 3
    assert kept[0][0]["places"] is places


def test_what_starts_that_were_killed_left_is_removed(config: RunConfig, tmp_path: Path) -> None:
    # No process has a number beyond the limit of the kernel.
    dead, file = (tmp_path / creation.hidden_name(1 << number) for number in (30, 31))
    (dead / "code").mkdir(parents=True)
    # Not of our making.
    file.write_text("")
    open_run(config, RunFolder(tmp_path / "run"))
    assert not dead.exists()
    assert file.exists()


def test_the_half_of_a_run_in_a_folder_that_stays_is_made_anew_and_is_on_the_disk_before_it_is_a_run(
    config: RunConfig, tmp_path: Path, disk_calls: list[tuple[str, str]]
) -> None:
    folder = RunFolder(tmp_path / "run")
    (folder.code_folder / "launch").mkdir(parents=True)
    (folder.code_folder / "launch" / "old.py").write_text("")
    (folder.checkpoints_folder / "step_00000007").mkdir(parents=True)
    folder.unfinished_path.write_text("")
    disk_calls.clear()
    open_run(config, folder)
    assert not changed_files(folder.code_folder)
    assert list(folder.checkpoints_folder.iterdir()) == []
    assert not folder.unfinished_path.exists()
    is_run = disk_calls.index(("name", str(folder.config_path)))
    assert ("sync", str(folder.code_folder / "launch" / "__init__.py")) in disk_calls[:is_run]
    # Of a run without secrets others may read everything.
    (tmp_path / "usual").write_text("")
    assert folder.config_path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def complete_checkpoint(checkpoints: Path, step: int) -> None:
    """Leave what says that a checkpoint is complete."""
    path = checkpoints / f"step_{step:08d}"
    path.mkdir(parents=True)
    (path / "checkpoint.json").write_text(json.dumps({"state": {"step": step}, "files": {}}))
