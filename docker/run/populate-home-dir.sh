#!/bin/bash
# populate-home-dir.sh HOME [OWNER]: copies what an image's home has (/opt/default-home) into one that lacks it, as a
# volume does; nothing that is there is touched.
set -euo pipefail
shopt -s nullglob dotglob
# shellcheck source=/dev/null
source /usr/local/bin/_docker_stacks_log.sh

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    _log_error "Usage: ${0##*/} <target_home> [<owner>]"
    exit 1
fi
if [ ! -d /opt/default-home ]; then
    _log_info "Backup directory /opt/default-home doesn't exist, nothing to restore"
fi
for source in /opt/default-home/*; do
    target=$1/${source##*/}
    if [ -e "$target" ] || [ -L "$target" ]; then
        _log_info "Skipping $target, it already exists"
        continue
    fi
    _log_info "Populating missing $target from $source"
    if ! cp --recursive --no-dereference --preserve=mode,links --no-target-directory "$source" "$target"; then
        _log_warn "Failed to populate $target"
    elif [ -n "${2-}" ] && ! chown --recursive --no-dereference "$2" "$target"; then
        _log_warn "Failed to change the owner of $target"
    fi
done
