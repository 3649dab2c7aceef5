#!/bin/bash
# Sourced by start.sh, and by hooks: _log_info, _log_warn and _log_error write dated lines to stderr.
# JUPYTER_DOCKER_STACKS_QUIET leaves warnings and errors only.

_log() {
    local level=INFO colour='' date
    case ${1-} in
    INFO | DEBUG) level=$1 && shift ;;
    WARNING) level=$1 colour=33 && shift ;;
    ERROR) level=$1 colour=31 && shift ;;
    esac
    if [[ $level != @(WARNING|ERROR) && -n ${JUPYTER_DOCKER_STACKS_QUIET-} ]]; then
        return 0
    fi
    printf -v date '%(%F %T)T' -1
    if [[ -n $colour && -t 2 && -z ${NO_COLOR-} ]]; then
        printf '\033[0;%sm%s[%s] %s\033[0m\n' "$colour" "$level" "$date" "$*" >&2
    else
        printf '%s[%s] %s\n' "$level" "$date" "$*" >&2
    fi
}
_log_info() { _log INFO "$@"; }
_log_warn() { _log WARNING "$@"; }
_log_error() { _log ERROR "$@"; }
