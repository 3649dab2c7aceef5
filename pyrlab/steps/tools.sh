#!/bin/sh
# Gets what the other tools here need besides Python: uv, and Python's own reading of versions and requirements.
set -eu
export PYTHONDONTWRITEBYTECODE=1 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
online() { PYTHONPATH=/pyrlab/tools python3 -B -m pyrlab.steps.network run "$@"; }
pip=-mpip
if ! python3 -m pip --version; then # as Debian's; nothing is installed, since the parent of an image may be here
    cd /tmp
    online apt-get -q=2 update --error-on=any
    online apt-get -q=2 download python3-pip-whl
    dpkg-deb --extract python3-pip-whl_*.deb /tmp/pip
    pip=$(echo /tmp/pip/usr/share/python-wheels/pip-*.whl)/pip
fi
online python3 "$pip" install --quiet --no-cache-dir --target /tmp/uv uv==0.13.8
online python3 "$pip" install --quiet --no-cache-dir --target /pyrlab/tools packaging==26.4
install /tmp/uv/bin/uv /pyrlab/tools
