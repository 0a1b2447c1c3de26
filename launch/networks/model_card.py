"""The model card of an export: README.md beside Hugging Face's files, for whoever is handed the folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.files.quoting import counted
from data_shards.files.typed_json import read_object
from launch.lifecycle.run_folder import RunFolder
from model.network import AnyNetwork

CARD = "README.md"
# By architecture: the tag by which Hugging Face's hub files a model, and the class that loads it.
_TASKS = {
    "PerceiverForMaskedLM": ("fill-mask", "AutoModelForMaskedLM"),
    "PerceiverForSequenceClassification": ("text-classification", "AutoModelForSequenceClassification"),
    "PerceiverForImageClassificationFourier": ("image-classification", "AutoModelForImageClassification"),
    "PerceiverForImageClassificationLearned": ("image-classification", "PerceiverForImageClassificationLearned"),
}
_FILES = {
    "preprocessor_config.json": 'processor = AutoImageProcessor.from_pretrained("FOLDER")',
    "tokenizer.json": 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
}


def card(network: AnyNetwork, architecture: str, files: Sequence[str], classes: Sequence[str], source: Path) -> str:
    """Return the card of a network that was exported from a run or from the folder of an imported one."""
    return "".join(f"{line}\n" for line in _lines(network, architecture, files, classes, source))


def _lines(
    network: AnyNetwork, architecture: str, files: Sequence[str], classes: Sequence[str], source: Path
) -> Iterator[str]:
    tag, loader = _TASKS.get(architecture, ("", architecture))
    yield "---"
    yield "library_name: transformers"
    if tag:
        yield f"pipeline_tag: {tag}"
    yield "tags: [perceiver]"
    yield "---"
    yield ""
    yield f"# {source.resolve().name}"
    yield ""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    yield f"A {architecture} with {parameters:,} parameters, exported by perceiver-trainer."
    yield ""
    yield "| input | values |"
    yield "|---|---|"
    for name, each in network.config.ordered_inputs.items():
        yield f"| {name} | {each.meaning(name)} |"
    if classes:
        yield ""
        yield f"It tells {counted(len(classes), 'class')} apart; config.json has their names."
    yield ""
    yield "```python"
    helpers = [line for name, line in _FILES.items() if name in files]
    imported = sorted([loader, *(line.split()[2].partition(".")[0] for line in helpers)])
    yield f"from transformers import {', '.join(imported)}"
    yield ""
    yield f'model = {loader}.from_pretrained("FOLDER")'
    yield from helpers
    yield "```"
    yield from _evaluation(RunFolder(source.resolve()).evaluation_path)


def _evaluation(path: Path) -> Iterator[str]:
    """Yield the figures of the run's last `perceiver eval`, where there was one."""
    if not path.is_file():
        return
    found = read_object(path)
    yield ""
    samples = counted(found["samples"], "sample")
    yield f"Evaluated after step {found['step']} on {samples} of the split {found['split']}:"
    yield ""
    # Of all samples, not of each input alone: a card is read by people.
    yield "| output | metric | value |"
    yield "|---|---|---|"
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]] = found["metrics"]
    for output, of_output in metrics.items():
        for metric, values in of_output.items():
            yield (
                f"| {output} | {metric.replace('_', ' ')} | {values['all']:.4g} |"
                if values["all"] is not None
                else (f"| {output} | {metric.replace('_', ' ')} | not measured |")
            )
