#!/usr/bin/env bash
# Fetch what a machine with a GPU, PyTorch, transformers and no network lacks: benchmarks/gpu/wheels.sh FOLDER
# For Python 3.12 on Linux, or that of PYTHON_VERSION; versions are those of constraints.txt. After `make .venv/installed`.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
pip=("${PYTHON:-.venv/bin/python}" -m pip)
packages=(pydantic pydantic_core annotated-types typing-inspection typing_extensions hjson omegaconf google-crc32c webdataset braceexpand
    submitit cloudpickle beartype jaxtyping wadler_lindig av xxhash pytest-timeout)
wanted=()
for package in "${packages[@]}"; do wanted+=("$(grep -i "^$package==" constraints.txt)"); done
"${pip[@]}" download -q --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$out" "${wanted[@]}"
# DeepSpeed comes as source, and is pure Python without its operators. Building it needs PyTorch.
DS_BUILD_OPS=0 DS_ACCELERATOR=cpu "${pip[@]}" wheel -q --no-deps --no-build-isolation -w "$out" "$(grep '^deepspeed==' constraints.txt)"
for wheel in "$out"/deepspeed-*.whl; do
    case "$wheel" in *none-any.whl) ;; *) echo "$wheel is not pure Python: build it with DS_BUILD_OPS=0" >&2; exit 1 ;; esac
done
ls "$out" | wc -l
