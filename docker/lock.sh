#!/usr/bin/env bash
# Pins everything again, with hashes, from pyproject.toml: requirements.lock, which is what `make setup`
# installs, and from it what each image installs. What is pinned stays as it is, unless it is named:
#   make lock                   after a change of pyproject.toml
#   make lock UPGRADE=pillow    a newer pillow
#   make lock UPGRADE=all       everything newer
# Needs uv. The result holds for every platform and Python that pyproject.toml admits; it names no index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

upgrade=()
case "${UPGRADE:-}" in
    "") ;;
    all) upgrade=(--upgrade) ;;
    *) upgrade=(--upgrade-package "$UPGRADE") ;;
esac

lock() { # OUTPUT OPTION… SOURCE
    local output="$1"
    shift
    uv pip compile --quiet --universal --generate-hashes --no-annotate \
        --custom-compile-command "make lock" --output-file "$output" "$@"
}

lock requirements.lock --all-extras "${upgrade[@]}" pyproject.toml

mkdir -p docker/locks
rm -f docker/locks/*.txt
from_all=(--constraints requirements.lock)
lock docker/locks/producer.txt "${from_all[@]}" pyproject.toml
lock docker/locks/worker.txt "${from_all[@]}" --extra worker pyproject.toml
# Of another index, TORCH_INDEX_URL, whose wheels have other hashes.
without_torch=(--no-emit-package torch --no-emit-package torchvision --no-emit-package triton)
while read -r package; do
    without_torch+=(--no-emit-package "$package")
done < <(grep -oE '^(nvidia|cuda)-[a-z0-9-]+' docker/locks/worker.txt)
lock docker/locks/worker-cpu.txt "${from_all[@]}" "${without_torch[@]}" --extra worker pyproject.toml
lock docker/locks/flower.txt "${from_all[@]}" <(printf 'flower\n')
lock docker/locks/build.txt "${from_all[@]}" <(printf 'setuptools\n')
