#!/usr/bin/env bash
# Runs the tests, the fast ones first: run.sh LANE …, folders of tests, or what pytest takes, as tests/check/test_r.py.
set -euo pipefail
cd "$(dirname "$0")/.."

for lane in "$@"; do
  case "$lane" in
    check | built | tiny | prove) # two modules at a time
      .venv/bin/pytest --quiet --numprocesses 2 --dist loadscope "tests/$lane" ;;
    *) exec .venv/bin/pytest "$@" ;;
  esac
done
