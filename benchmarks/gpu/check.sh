#!/usr/bin/env bash
# Measure on a machine with a GPU and perhaps without a network: benchmarks/gpu/check.sh OUT [WHEELS] [--parts A,B ...]
# WHEELS is what wheels.sh fetched where there is a network. What the machine's Python has stays as it is. More arguments
# are those of `python -m benchmarks.gpu`.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
wheels=""
case "${1:-}" in "" | --*) ;; *) wheels=$1 && shift ;; esac
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=$PWD
began=$SECONDS
if [ -n "$wheels" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
    PYTHONPATH=$PWD:$site
fi
# Whole runs are processes of processes, and find the same packages.
"$python" -m benchmarks.gpu --device cuda --out "$out" --seconds $((${SECONDS_LIMIT:-475} - (SECONDS - began))) "$@"
echo "$out/gpu_check.json after $((SECONDS - began)) s"
