#!/usr/bin/env bash
# Checks the style and types of every file (make lint).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

if git grep --untracked -nI '[[:space:]]$'; then
  echo "lint: the lines above end in blanks" >&2
  exit 1
fi
ruff check --quiet .
ruff format --quiet --check .
mypy pyrlab
mypy docker/sbom
mypy docker/run/*.py docker/run/pdf
mypy tests
MYPYPATH=.:tests:tests/make mypy bench
git ls-files -z --cached --others --exclude-standard '*.sh' | xargs -0 shellcheck
hadolint docker/*/Dockerfile tests/make/*.Dockerfile
