#!/bin/bash
# To be sourced with one folder: sources each *.sh in it, which may change the environment, and runs each executable.
# A hook that fails is named in the log and passed over. No function is around this, in which what a hook declares
# would be local.

# shellcheck source=/dev/null
declare -F _log >/dev/null || source /usr/local/bin/_docker_stacks_log.sh

if [ $# -ne 1 ]; then
    _log_error "Should pass exactly one directory"
    # shellcheck disable=SC2317
    return 1 2>/dev/null || exit 1
fi
if [ ! -d "$1" ]; then
    _log_error "Directory $1 doesn't exist or is not a directory"
    # shellcheck disable=SC2317
    return 1 2>/dev/null || exit 1
fi
[ -r "$1" ] || _log_error "Directory $1 cannot be read, so no hook in it is run"

_hook_options=$(set +o) # which does not tell of errexit
[[ $- != *e* ]] || _hook_options+=$'\nset -e'
_log_info "Running hooks in: $1 as uid: $EUID gid: ${GROUPS[0]}"
for _hook in "$1"/*; do
    [ -e "$_hook" ] || continue
    set +eu +o pipefail # hooks are not written for these; one that sets errexit itself means to end the start
    case $_hook in
    *.sh)
        _log_info "Sourcing shell script: $_hook"
        # shellcheck disable=SC1090
        source "$_hook"
        ;;
    *)
        if [ -x "$_hook" ]; then
            _log_info "Running executable: $_hook"
            "$_hook"
        else
            _log_info "Ignoring non-executable: $_hook"
        fi
        ;;
    esac
    # shellcheck disable=SC2181
    [ $? = 0 ] || _log_error "$_hook has failed, continuing execution"
done
_log_info "Done running hooks in: $1"
eval "$_hook_options"
unset _hook _hook_options
