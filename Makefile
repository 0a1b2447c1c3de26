# The two commands of a newcomer are `make demo` and `make test`; `make check` is what every commit passes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check fast lint mutants gpu-check compatibility clean

# torch first and alone: where a CPU wheel of this version is at hand pip takes it, and nothing later asks for another.
# perceiver-io last and alone: it asks for an older Python and PyTorch Lightning, which the tests of its network do not
# need.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps --ignore-requires-python perceiver-io==0.11.0
	touch $@

demo: .venv/installed
	$(BIN)/perceiver data build digits data/digits
	$(BIN)/perceiver train configs/digits.yaml data.shards=data/digits --run runs/digits
	$(BIN)/perceiver eval runs/digits

# Several processes share the cores in the tests.
test fast: export OMP_NUM_THREADS = 1

# A file's tests stay in one process, since they share what is dear to set up; the long ones come first. Four processes
# on two cores, since half of the time tests wait for others that they started, most of all those of a real Slurm. A
# process of tests that dies is not replaced: what it had left to do would be waited for without end.
test: .venv/installed
	$(BIN)/pytest -n 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

check: .venv/installed lint fast

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: .venv/installed
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

# Plants faults in a clone and counts those that the tests notice; run before a release.
mutants: .venv/installed
	$(BIN)/python tests/mutants/run.py --count 300 --marker "not slurm" --seconds 300

# Tries the GPU kit itself, every part at tiny sizes on the CPU; docs/gpu.md says how to measure a GPU.
gpu-check: .venv/installed
	$(BIN)/python -m benchmarks.gpu --device cpu --tiny --out .gpu

# The fast tests with the oldest and the newest PyTorch and DeepSpeed that pyproject.toml allows, in environments under
# .compatibility/. By hand: PyTorch's wheels for CUDA bring gigabytes. `make compatibility PYTHON=python3.13`.
compatibility:
	$(PYTHON) tests/compatibility/environments.py $(COMPATIBILITY)

clean:
	rm -rf .venv .gpu .compatibility data runs
