#!/usr/bin/env bash
# Runs the tests, the fast ones first: run.sh LANES …, folders of tests, each with those that run side by side with it as
# in 'built tiny'; or what pytest takes, as tests/check/test_r.py.
set -euo pipefail
cd "$(dirname "$0")/.."

NOT_RUN=$(mktemp) # what is left out, and why: told at the end of all
export NOT_RUN
trap 'cat "$NOT_RUN"; rm "$NOT_RUN"' EXIT
for lanes in "$@"; do
  case "$lanes" in
    check | built | tiny | 'built tiny' | prove/*) # three modules at a time, of which one mostly waits
      read -ra folders <<<"$lanes"
      .venv/bin/pytest --quiet --numprocesses 3 --dist loadscope "${folders[@]/#/tests/}"
      ;;
    *)
      .venv/bin/pytest "$@"
      break
      ;;
  esac
done
