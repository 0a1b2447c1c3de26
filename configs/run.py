"""The configuration of a run: one frozen dataclass, read strictly from defaults < YAML file < key=value."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from configs import plugins
from configs.files import leaves
from configs.input_files import container, name_as_kept
from configs.reader import asked, read
from data_shards.config import DataConfig
from data_shards.files.display import printable
from data_shards.modalities.modality import Modality
from model.config.initial_weights import InitialWeightsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.input import UNSAID, Input
from model.outputs.vector import VectorOutput
from trainer.config import CheckpointConfig, HealthConfig, OptimizerConfig, ProfileConfig, TrainConfig, joint_problems
from trainer.ema_config import EmaConfig

VERSION = 1
MOST_SEED = 2**63 - 1
"""The generators of torch take no larger one."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes; how many processes compute it is not part of it."""

    version: int = VERSION
    """Version of this layout; a file of another version is refused."""
    plugins: tuple[str, ...] = ()
    """Python files of one's own, with kinds of what is built in; a run keeps a copy of each. See docs/extending.md."""
    seed: int = 0
    """Seed of the weights, of the order of the samples and of every random transform."""
    data: DataConfig = field(default_factory=DataConfig)
    """The shards and what is read from them."""
    model: PerceiverConfig = field(default_factory=PerceiverConfig, metadata={"follows": {"inputs": "data.inputs"}})
    """The network."""
    initial_weights: InitialWeightsConfig = field(default_factory=InitialWeightsConfig)
    """The weights from which the run starts, if they are not those that its seed draws."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer and its schedule."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The moving average of the weights."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, batch, precision and partitioning of the training."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written and which are kept."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """Responses to bad steps and hanging processes."""
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """A window of steps to be traced."""

    def __post_init__(self) -> None:
        # Written once, in the data; whoever reads the network finds them there.
        of_data = self.data.inputs
        inputs = {
            name: each.with_sizes(of_data[name].sizes) if name in of_data and _agree(each, of_data[name]) else each
            for name, each in self.model.inputs.items()
        }
        # Of a frozen dataclass. Each copy by replace() comes by here too, so other sizes in the data reach the network.
        object.__setattr__(self, "model", _with_inputs(self.model, inputs))

    def sizes_of_data(self) -> dict[str, list[str]]:
        """Return the keys of each input of the network that stand in the data, and need stand nowhere else."""
        of_data = self.data.inputs
        return {
            name: each.equal_sizes(of_data[name].sizes)
            for name, each in self.model.inputs.items()
            if name in of_data and _agree(each, of_data[name])
        }

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) of every problem that a part sees in itself and of those that only the whole sees."""
        if self.version != VERSION:
            remedy = f"set version={VERSION} after comparing the keys, or use the release that wrote the file"
            yield "version", f"this release reads version {VERSION}; {remedy}"
        if not 0 <= self.seed <= MOST_SEED:
            yield "seed", f"must be from 0 to {MOST_SEED}, got {self.seed}"
        for part in (each.name for each in fields(self) if is_dataclass(getattr(self, each.name))):
            for key, sentence in getattr(self, part).problems():
                # Of an input that the data lack this is reported below, in one sentence.
                if part != "model" or sentence != UNSAID or key.split(".")[1] in self.data.inputs:
                    yield f"{part}.{key}", sentence
        # Where it is `auto`, a run at stage 3 does not compile.
        yield from joint_problems(self.optimizer, self.train, self.ema, compiles=self.model.compile is True)
        if self.model.residual_dtype == "bf16" and self.train.precision != "bf16":
            precision = f"train.precision=bf16, which is {self.train.precision}"
            yield "model.residual_dtype", f"bf16 is for {precision}; set that to bf16, or leave this out"
        if self.train.activation_memory_gib and self.model.activation_checkpointing != "none":
            chosen = f"model.activation_checkpointing, which is {self.model.activation_checkpointing}"
            yield "train.activation_memory_gib", f"chooses {chosen}; set one of the two"
        if self.train.patience and not self.checkpoint.keep_best:
            needed = "needs checkpoint.keep_best=true: the best weights would be deleted before the run ends"
            yield "train.patience", needed
        yield from self._loss_problems()
        yield from self._batch_problems()
        yield from self._shape_problems()
        yield from self._target_problems()
        yield from self._clip_problems()

    def _shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array of a sample: an input, or its coordinates."""
        section = self.data.ordered_inputs[name.partition(".")[0]]
        return (section.places or ()) if "." in name else section.shape

    def _loss_problems(self) -> Iterator[tuple[str, str]]:
        """A loss that is always 0 trains nothing."""
        outputs = self.model.outputs
        if outputs and not any(output.loss_weight for output in outputs.values()):
            remedy = "no step would change a weight; set one above 0"
            yield f"model.outputs.{next(iter(outputs))}.loss_weight", f"is 0, as that of every output: {remedy}"

    def _batch_problems(self) -> Iterator[tuple[str, str]]:
        lanes = self.data.lanes
        if lanes > 0 and self.train.global_batch % lanes:
            yield "train.global_batch", f"must be a multiple of data.lanes, which is {lanes}; change one of the two"

    def _shape_problems(self) -> Iterator[tuple[str, str]]:
        """The network's inputs must be those that the data deliver, with the same shapes."""
        wanted, delivered = self.model.ordered_inputs, self.data.ordered_inputs
        for name in sorted(wanted.keys() - delivered.keys()):
            yield f"model.inputs.{name}", f"is set but data.inputs.{name} is not; set both or neither"
        # What only an output asks for is no input of the network: the picture that a grid reconstructs, or coordinates.
        asked = {of.partition(".")[0] for output in self.model.answers().values() for _, of in output.wanted()}
        for name in sorted(delivered.keys() - wanted.keys() - asked):
            yield f"data.inputs.{name}", f"is set but model.inputs.{name} is not; set both or neither"
        for name in sorted(wanted.keys() & delivered.keys()):
            yield from self._differences(name, wanted[name], delivered[name])

    def _differences(self, name: str, ours: Input, theirs: Modality) -> Iterator[tuple[str, str]]:
        """Yield in what an input of the network differs from that of the data."""
        if not _agree(ours, theirs):
            sentence = f"is {ours.modality}, but data.inputs.{name}.modality is {theirs.modality}; leave this out"
            yield f"model.inputs.{name}.modality", sentence
        elif ours.shape != theirs.shape:
            yield (
                f"model.inputs.{name}",
                f"reads arrays of shape {ours.shape}, but data.inputs.{name} delivers {theirs.shape}; leave the "
                "sizes out here, or make the two agree",
            )
        elif theirs.hides and not self.model.mask_tokens:
            sentence = "hides it behind the network's mask token: set model.mask_tokens=true, or hide nothing"
            yield f"data.inputs.{name}", sentence
        elif theirs.has_gaps:
            sentence = "keeps NaN, which the network cannot read; keep it for an input that is only answered for"
            yield f"data.inputs.{name}.nan", sentence
        elif ours.places != theirs.places:
            found = f"reads coordinates of shape {ours.places}, but data.inputs.{name} delivers {theirs.places}"
            yield f"model.inputs.{name}.num_axes", f"{found}; leave it out"
        for key in _IDS:
            if ours.ids and theirs.sizes.get(key, 0) > ours.ids[1]:
                found = f"data.inputs.{name} delivers ids up to {theirs.sizes[key] - 1}"
                yield f"model.inputs.{name}.{key}", f"has ids below {ours.ids[1]}, but {found}; leave it out"

    def _clip_problems(self) -> Iterator[tuple[str, str]]:
        """Answers to several clips are averaged, which has a meaning for those about the sample as a whole."""
        clips = self.data.clips
        others = [name for name, output in self.model.outputs.items() if not isinstance(output, VectorOutput)]
        if clips is not None and clips.num_test > 1 and others:
            found = f"averages answers, and model.outputs.{others[0]} is about what was read; set it to 1"
            yield "data.clips.num_test", found

    def _target_problems(self) -> Iterator[tuple[str, str]]:
        """The data must have the targets of the network's answers, and no others."""
        there = self.data.targets()
        wanted = [(name, *pair) for name, output in self.model.answers().items() for pair in output.wanted()]
        for name, kind, of in wanted:
            if (kind, of) not in there:
                lacking = _LACKING.get(kind, "wants {kind!r} of {of!r}, which no data have; see DataConfig.targets()")
                yield f"model.outputs.{name}", lacking.format(kind=kind, of=of)
            elif kind == "input":
                found = self.model.answers()[name].input_problems(of, self._shape_of(of))
                yield from ((f"model.outputs.{name}.{key}", sentence) for key, sentence in found)
        for (kind, of), key in there.items():
            # A target that is there in any case, such as the label of each sample, may go unused.
            if key and (kind, of) not in [pair[1:] for pair in wanted]:
                yield (
                    f"data.{key}",
                    f"{_UNUSED[kind].format(of=of)}, which no output answers; set one, or leave this out",
                )


_IDS = ("vocabulary", "num_classes")
"""The sizes that say how many ids an input has."""
_LACKING = {
    "label": "needs one label per sample: set data.multi_label=false, or kind=labels",
    "labels": "needs the list of a sample's labels: set data.multi_label=true, or kind=label",
    "named label": "needs the label {of!r}: name it in data.labels, or leave target out",
    "value": "needs the value {of!r}: name it in data.values, or set target to one that is there",
    "hidden words": "fills in hidden words: set data.inputs.{of}.masking, or leave this out",
    "motion": "answers the motion of data.inputs.{of}: set that, or leave this out",
    "input": "answers for data.inputs.{of}: set that, or leave this out",
}
_UNUSED = {
    "label": "makes targets of the label",
    "labels": "makes targets of the labels",
    "named label": "names {of!r}",
    "value": "names {of!r}",
    "hidden words": "hides words",
    "motion": "reads pairs of frames for their motion",
}


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a run: defaults < YAML file < key=value; ConfigError has every problem at once.

    Its plug-ins are run first, and found by their whole paths then. Those of another run only where it is trusted.

    Raises ValueError for the file of an imported network, beside whose weights a run would start from new ones.
    """
    # First: what a configuration may say depends on them.
    files = plugins.found(asked("plugins", path, overrides) or (), path.parent)
    plugins.check_trust(path, files)
    plugins.use(files)
    weights = path.with_name("model.safetensors")
    if weights.is_file() and not asked("initial_weights.source", path, overrides):
        raise ValueError(
            f"{path}: describes the network whose weights are in {weights}, and a run would start from new weights; "
            f"to train from those set initial_weights.source={path.parent}, to train a new network of its shape copy "
            f"{path.name} into another folder; `perceiver plan` and `perceiver export` take this one"
        )
    return replace(read(RunConfig, path, overrides), plugins=tuple(map(str, files)))


def dump(config: RunConfig, *, as_kept: bool = False) -> str:
    """Return the resolved configuration as YAML; `load` of it gives an equal one.

    The sizes of a network's inputs stand in the data alone: an override changes both. With `as_kept` files are named by
    their copies in the folder of a run.
    """
    content = container(config, name_as_kept if as_kept else str)
    for name, keys in config.sizes_of_data().items():
        for key in keys:
            # Neither the size, which an override would not change, nor a default that the run does not have.
            del content["model"]["inputs"][name][key]
    return OmegaConf.to_yaml(OmegaConf.create(content))


def _with_inputs(model: PerceiverConfig, inputs: dict[str, Input]) -> PerceiverConfig:
    return model if inputs == model.inputs else replace(model, inputs=inputs)


def _agree(ours: Input, theirs: Modality) -> bool:
    # A section of a plug-in may be derived from one of ours, and is read as that.
    return ours.modality in {getattr(base, "modality", "") for base in type(theirs).__mro__}


def difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Return a line "key: old -> new" for every value in which two configurations differ.

    Files are compared by their content: each is named by the hash of it.
    """
    return differing(_content(old), _content(new))


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return such lines for the contents of two files."""
    before, after = dict(leaves(old)), dict(leaves(new))
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return [printable(f"{key}: {before.get(key)!r} -> {after.get(key)!r}") for key in changed]


def _content(config: RunConfig) -> dict[str, Any]:
    content: dict[str, Any] = container(config, name_as_kept)
    return content
