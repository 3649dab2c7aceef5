#!/bin/bash
# Entry point of every image: sees to it that whoever starts the lab has a name, a home, and what its options ask for,
# runs the hooks, then becomes the command. What the ordinary start does not need is in contract.py.
set -euo pipefail
# shellcheck source=/dev/null
source /usr/local/bin/_docker_stacks_log.sh
_log_info "Entered start.sh with args: $*"

[ $# -gt 0 ] || set -- bash
[[ $1 != -* ]] || set -- start-notebook.py "$@" # the lab's options alone
if [ -n "${_START_SH_EXECUTED-}" ]; then
    _log_warn "start.sh is the default ENTRYPOINT, do not include it in CMD"
    exec "$@"
fi
export _START_SH_EXECUTED=1
contract() { # by the system's Python: the environment's belongs to the user
    local python
    python=$(PATH=/usr/local/bin:/usr/bin type -P python3)
    exec "$python" -I -S /etc/jupyter/contract.py "$@"
}

command=("$@")
# shellcheck source=/dev/null
source /usr/local/bin/run-hooks.sh /usr/local/bin/start-notebook.d

: "${HOME:=/home/jovyan}" "${NB_USER:=jovyan}"
name='\u' # as a prompt shows it
nameless=
if [ "${name@P}" = "I have no name!" ]; then
    # git, ssh and getpass ask for the user's name; libnss-extrausers reads this file for uids from 500 on.
    echo "${NB_USER//[^[:alnum:]_.-]/_}:x:$EUID:${GROUPS[0]}:jovyan:$HOME:/bin/bash" \
        2>/dev/null >>/var/lib/extrausers/passwd || nameless=yes
fi

packages=(/opt/venv/lib/python3*/site-packages)
asked=$NB_USER:${NB_UID:-1000}:${NB_GID:-100}:${CHOWN_HOME-}${CHOWN_EXTRA-}${GRANT_SUDO-}
become=()
if [ $EUID = 0 ] || [ "$asked" != jovyan:1000:100: ] || [ -n "$nameless" ] ||
    [ ! -w "$HOME" ] || [ ! -w /tmp ] || [ ! -w "${packages[0]}" ]; then
    settled=$(contract settle) || exit 1 # whatever hooks have made of errexit
    eval "$settled" # HOME and the like; for root whom to become
elif [ "$PWD" = /home/jovyan ]; then
    cd "$HOME"
fi
if [ ${#become[@]} = 0 ] && [ "$HOME" = /home/jovyan ] && [ ! -e "$HOME/.profile" ]; then # an empty volume
    populate-home-dir.sh "$HOME"
fi

# shellcheck source=/dev/null
source /usr/local/bin/run-hooks.sh /usr/local/bin/before-notebook.d

# A home may outlive the image; by its time stamps nobody knows a file of one image from another's.
if [ ${#become[@]} = 0 ] && [ ! -e /tmp/.pyrlab-started ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}
    for old in "$cache/fontconfig" "$cache/matplotlib" "$cache/numba" "$cache/ipython/numba_cache"; do
        [ ! -e "$old" ] || rm -rf "$old" || true
    done
    : 2>/dev/null >/tmp/.pyrlab-started || true
fi

if [ -n "${JUPYTER_ENV_VARS_TO_UNSET-}" ]; then
    for variable in ${JUPYTER_ENV_VARS_TO_UNSET//,/ }; do
        _log_info "Unset $variable due to JUPYTER_ENV_VARS_TO_UNSET"
        unset "$variable" || true # no name of a variable
    done
    unset JUPYTER_ENV_VARS_TO_UNSET
fi

if [ ${#become[@]} -gt 0 ]; then
    _log_info "Running as ${become[0]}: ${command[*]}"
    contract become "${become[@]}" "${command[@]}"
fi
_log_info "Executing the command: ${command[*]}"
exec "${command[@]}"
