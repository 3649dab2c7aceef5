#!/bin/bash
# Entry point of every image: gives a uid that has no name one, drops what is cached of another image's files, then
# becomes the command.
set -euo pipefail

if ! id -un >/dev/null 2>&1; then
    # git, ssh and getpass ask for the user's name; libnss-extrausers reads this file for uids above 500.
    echo "jovyan:x:$(id -u):$(id -g):jovyan:${HOME}:/bin/bash" >>/var/lib/extrausers/passwd
fi
# A home may outlive the image; by its time stamps nobody knows a file of one image from another's.
if [ ! -e /tmp/.pyrlab-started ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}
    rm -rf "$cache/fontconfig" "$cache/matplotlib" "$cache/numba" "$cache/ipython/numba_cache" || true
    touch /tmp/.pyrlab-started || true
fi
exec "$@"
