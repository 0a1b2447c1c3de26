"""Compiling changes no gradient, takes no more compilations in a large network than in a small one, and is a GPU's way.

A stand-in for the compiler counts the graphs that it is given and runs them as they are: what is traced, guarded,
differentiated and computed again is as with the real one, which test_recomputation.py uses.
"""

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from warm_start import finished

from model.config.perceiver import PerceiverConfig
from model.training import compilation
from model.training.compilation import Regions, frugal_inductor, is_compiled

COUNTS = """
import dataclasses, sys
sys.path.insert(0, {folder!r})
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
import model.training.compilation
from test_recomputation import CONFIG, IMAGE, Perceiver, gradients

graphs = []
inner = aot_autograd(
    fw_compiler=lambda graph, _: make_boxed_func(graph.forward), partition_fn=min_cut_rematerialization_partition
)

def counted(graph, inputs):
    graphs.append(graph)
    return inner(graph, inputs)

model.training.compilation.frugal_inductor = counted
SMALL = dict(num_cross_attends=2, num_blocks=2, layers_per_block=1)
LARGE = dict(num_cross_attends=3, num_blocks=3, layers_per_block=2, share_blocks=False, share_cross_attends=False)

def compiled(config, *policies):
    "Return how many graphs each policy adds; the gradients are those of keeping everything, not compiled."
    expected, counts = gradients(dataclasses.replace(config, compile=False)), []
    for policy in policies:
        before = len(graphs)
        found = gradients(dataclasses.replace(config, compile=True, activation_checkpointing=policy))
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7, msg=name)
        counts.append(len(graphs) - before)
    return counts

{body}
"""
FORM = """
form, policies = {form!r}, ("none", "blocks", "layers", "selective", "offload")
inputs = {{"image": IMAGE}} if form == "separable" else CONFIG.inputs
config = dataclasses.replace(CONFIG, inputs=inputs, cross_attend_form=form)
[first] = compiled(dataclasses.replace(config, **SMALL), "none")
# A layer and a cross-attend, in the parts that its form has; the first one is given latents that all samples share.
assert first == {expected}, first
assert compiled(dataclasses.replace(config, **LARGE), *policies) == [0] * 5
network = Perceiver(dataclasses.replace(config, **SMALL, compile=True), seed=0).eval()
arrays = {{n: torch.rand(3, *m.shape) for n, m in config.ordered_inputs.items()}}
plain = Perceiver(dataclasses.replace(config, **SMALL, compile=False), seed=0).eval()
before = len(graphs)
with torch.no_grad():
    torch.testing.assert_close(network(arrays)["label"], plain(arrays)["label"])
    once = len(graphs) - before
    network(arrays)
assert once <= {expected} and len(graphs) - before == once
"""


def run(body: str) -> None:
    # In a process of its own: the checks of shapes that the tests put around every function cannot be compiled.
    code = COUNTS.format(folder=str(Path(__file__).parent), body=body)
    done = finished([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "expected"), [("plain", 3), ("absorbed", 5), ("separable", 5)])
def test_blocks_cross_attends_and_policies_add_no_compilation(form: str, expected: int) -> None:
    run(FORM.format(form=form, expected=expected))


def test_a_gpu_compiles_by_default_and_a_cpu_where_it_is_told_to() -> None:
    assert PerceiverConfig().compile == "auto"
    assert [is_compiled("auto", device) for device in ("cuda", "cpu", "meta")] == [True, False, False]
    assert [is_compiled(setting, device) for setting in (True, False) for device in ("cuda", "cpu")] == [
        *(True, True),
        *(False, False),
    ]
    assert [is_compiled("auto", "cuda", zero_stage=stage) for stage in (0, 1, 2, 3)] == [True, True, True, False]
    assert dataclasses.replace(PerceiverConfig(), compile=True).compile is True


# By its own means: what monkeypatch puts back into this module can be read by nobody.
@torch._dynamo.config.patch(recompile_limit=8)  # type: ignore[untyped-decorator]
def test_a_layer_is_compiled_for_its_own_shapes_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, dict[str, object]]] = []

    def done() -> None:
        """Stand for what the compiler makes of any function."""

    def compiled(function: object, **options: object) -> object:
        asked.append((function, options))
        return done

    monkeypatch.setattr(torch, "compile", compiled)

    def layer() -> None:
        """A function of its own: what was compiled once is kept."""

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    regions = Regions(True)
    assert regions(layer, cpu) is done
    assert regions(layer, cpu) is done
    assert asked == [(layer, {"backend": compilation._backend, "dynamic": False})]
    assert torch._dynamo.config.recompile_limit >= 32
    assert Regions("auto")(layer, cpu) is layer
    assert Regions(False)(layer, cpu) is layer
    if not torch.cuda.is_available():
        # Shapes of a GPU without a GPU have no numbers, and nothing to compile.
        assert Regions("auto")(layer, gpu) is layer
        assert Regions(True)(layer, gpu) is layer
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert Regions("auto")(layer, gpu) is done
    assert Regions(False)(layer, gpu) is layer
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert Regions(True)(layer, cpu) is layer
    # A higher limit of a user's own stays.
    torch._dynamo.config.recompile_limit = 1_000
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: False)
    Regions(True)(lambda: None, cpu)
    assert torch._dynamo.config.recompile_limit == 1_000


def test_the_compiler_has_a_budget_of_memory_and_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._functorch.config
    import torch._inductor.config

    graph, inputs = torch.fx.symbolic_trace(torch.nn.Identity()), [torch.zeros(1)]
    seen: list[object] = []

    def compile_fx(graph: object, inputs: object, *, config_patches: dict[str, object]) -> str:
        deterministic = getattr(torch._inductor.config, "deterministic", True)
        seen.append((graph, inputs, config_patches.get("deterministic", True), deterministic))
        # Of all that could be kept all but what is cheap to compute again.
        assert 0.5 < torch._functorch.config.activation_memory_budget < 1
        return "code"

    # In the place of the compiler, which takes seconds to load.
    compiler_module = ModuleType("torch._inductor.compile_fx")
    vars(compiler_module)["compile_fx"] = compile_fx
    monkeypatch.setitem(sys.modules, compiler_module.__name__, compiler_module)
    for compiler in (frugal_inductor, compilation._backend):
        assert compiler(graph, inputs) == "code"
    assert seen == [(graph, inputs, True, True)] * 2
