#!/usr/bin/env bash
# Bootstraps the Python image from Debian's archive, where no registry answers: bootstrap.sh ROOT.tar
# mmdebstrap checks Debian's signatures and gives the same archive for the same packages.
set -euo pipefail

tar=$1
here=$(cd "$(dirname "$0")" && pwd)
# Told by environment, the proxies leave no trace in the archive. apt-cacher-ng serves plain HTTP, as Debian does.
export SOURCE_DATE_EPOCH=1767225600 # as in bake.hcl
export http_proxy=${APTPROXY:-${http_proxy:-}} https_proxy=${https_proxy:-} no_proxy=${no_proxy:-}
if [ -z "$http_proxy" ]; then unset http_proxy; fi
if [ -z "$https_proxy" ]; then unset https_proxy; fi
kept=SOURCE_DATE_EPOCH,http_proxy,https_proxy,no_proxy
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n --preserve-env=$kept "$@"; fi; }

bootstrap() {
  "$@" mmdebstrap --variant=minbase --include=python3,ca-certificates \
    --dpkgopt="$here/../pyrlab-base/dpkg.cfg" --format=tar trixie -
}

mkdir -p "$(dirname "$tar")"
trap 'rm -f "$tar.part"' EXIT
if ! command -v mmdebstrap >/dev/null && command -v apt-get >/dev/null && as_root true 2>/dev/null; then
  as_root apt-get update -qq
  as_root apt-get install -qq -y --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null
fi
if command -v mmdebstrap >/dev/null; then
  if ! as_root true 2>/dev/null; then as_root() { "$@"; }; fi # mmdebstrap then uses a user namespace
  bootstrap as_root >"$tar.part"
else
  # No Debian on this host: the same command in a container of Debian's own image.
  docker run --rm --env SOURCE_DATE_EPOCH --env http_proxy --env https_proxy --env no_proxy --volume "$here/..:$here/..:ro" "${DEBIAN_IMAGE:-debian:trixie-slim}" sh -ec "
    { apt-get update -qq; apt-get install -qq -y --no-install-recommends mmdebstrap; } >&2
    $(declare -f bootstrap); here='$here'; bootstrap env" >"$tar.part"
fi
mv "$tar.part" "$tar"
