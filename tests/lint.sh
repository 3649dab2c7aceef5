#!/usr/bin/env bash
# Checks the style and types of every file (make lint).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

ruff check --quiet .
ruff format --quiet --check .
mypy pyrlab
mypy docker/build
mypy docker/sbom
mypy docker/run/*.py docker/run/pdf
mypy tests
MYPYPATH=docker/build:tests mypy bench
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh')
shellcheck "${scripts[@]}"
python3 -m pyrlab.dockerfile | hadolint -
hadolint docker/debian/Dockerfile docker/proxies/Dockerfile
pytest --quiet tests/test_documentation.py
