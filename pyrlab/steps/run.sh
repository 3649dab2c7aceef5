#!/bin/sh
# Runs a module of this folder as a build step: with the system's Python, not the image's environment, leaving no bytecode.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root UV_CACHE_DIR=/opt/uv
export PYTHONPATH=/pyrlab/tools PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 PYTHONUNBUFFERED=1
unset VIRTUAL_ENV SSL_CERT_FILE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS
if [ -e /pyrlab/dpkg.cfg ] && ! cmp -s /pyrlab/dpkg.cfg /etc/dpkg/dpkg.cfg.d/pyrlab; then
    export ADDED=/etc/dpkg/dpkg.cfg.d/pyrlab
    install -m 644 /pyrlab/dpkg.cfg "$ADDED"
fi
tool=$1
shift
exec python3 -m "pyrlab.steps.$tool" "$@"
