#!/usr/bin/env bash
# Makes .venv, with the Python packages that tests and checks need.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! python3 -c 'import ensurepip' 2>/dev/null; then
  echo "tests: this Python cannot make .venv; install python3-venv" >&2
  exit 1
fi
echo "tests: setting up .venv" >&2
rm -rf .venv
python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
touch .venv/ready
