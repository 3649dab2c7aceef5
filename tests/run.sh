#!/usr/bin/env bash
# Proves everything, the fast checks first (make test). Arguments choose tests, as in run.sh tests/test_layers.py.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then tests/lint.sh; fi
.venv/bin/pytest --durations=10 "$@"
