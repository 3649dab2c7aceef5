#!/usr/bin/env bash
# Installs what tests and bench need beside .venv: Chromium, a registry and a puller, a proxy, an ssh server.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
debian_packages=()
command -v chromium >/dev/null || debian_packages+=(chromium)
command -v docker-registry >/dev/null || debian_packages+=(docker-registry)
command -v skopeo >/dev/null || debian_packages+=(skopeo)
[ -x /usr/sbin/squid ] || debian_packages+=(squid-openssl)
command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] || debian_packages+=(openssh-server)
if [ "${#debian_packages[@]}" -gt 0 ]; then
  if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
    echo "tests: please install ${debian_packages[*]}, which the tests need" >&2
    exit 1
  fi
  echo "tests: installing ${debian_packages[*]}" >&2
  # The tests start servers of their own; the packages' services are neither started now nor, of ssh, at boot.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"
    trap 'as_root rm "$policy"' EXIT
  fi
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${debian_packages[@]}" >/dev/null
  if [ -d /run/systemd/system ] && [[ " ${debian_packages[*]} " == *" openssh-server "* ]]; then
    as_root systemctl --quiet disable ssh.service ssh.socket
  fi
fi
