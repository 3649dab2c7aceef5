#!/usr/bin/env bash
# Runs the tests, the fast ones first: run.sh LANE …, folders of tests, or what pytest takes, as tests/check/test_r.py.
set -euo pipefail
cd "$(dirname "$0")/.."

NOT_RUN=$(mktemp) # what each lane leaves out, and why: told after the last one
export NOT_RUN
trap 'cat "$NOT_RUN"; rm "$NOT_RUN"' EXIT
for lane in "$@"; do
  case "$lane" in
    check | built | tiny | prove) # two modules at a time
      .venv/bin/pytest --quiet --numprocesses 2 --dist loadscope "tests/$lane" ;;
    *)
      .venv/bin/pytest "$@"
      break
      ;;
  esac
done
