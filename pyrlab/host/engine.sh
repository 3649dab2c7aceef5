#!/usr/bin/env bash
# Installs and starts a container engine from the distribution's own packages: engine.sh [engine].
# Needs root or password-less sudo on Debian or Ubuntu. Only where none answers, nor is anywhere else (pyrlab/host/ready.py).
set -euo pipefail
PATH=$PATH:/usr/sbin # where Debian has dockerd, and an ordinary user's PATH ends before

say() { printf 'pyrlab: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
answers() { as_root timeout 30 docker info >/dev/null 2>&1; }

# shellcheck source=/dev/null
if [ -r /etc/os-release ]; then . /etc/os-release; else ID=$(uname -s) PRETTY_NAME=$ID; fi

install_engine() {
  local packages=(docker.io docker-cli docker-buildx docker-compose)
  case "$ID-${VERSION_CODENAME:-}" in
    debian-bookworm)
      # Debian 12's own engine (20.10) has no BuildKit that reads heredocs. Debian 13's four packages run
      # on Debian 12's containerd and runc; everything else of Debian 13 stays out (priority 100).
      local mirror
      # shellcheck disable=SC2016 # apt-get expands these
      mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' |
        awk '$2 == "bookworm" && $3 == "main" { print $1; exit }')
      [ -n "$mirror" ] || die "no apt source names Debian's bookworm/main, so trixie's cannot be derived from it"
      as_root tee /etc/apt/sources.list.d/pyrlab-trixie.sources >/dev/null <<SOURCES
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
      as_root tee /etc/apt/preferences.d/pyrlab-trixie >/dev/null <<PIN
Package: *
Pin: release n=trixie
Pin-Priority: 100

Package: ${packages[*]}
Pin: release n=trixie
Pin-Priority: 700
PIN
      ;;
    debian-*) ;;
    ubuntu-*) packages=(docker.io docker-buildx docker-compose-v2) ;;
  esac
  # An engine that pyrlab installs gets the containerd image store; one that it finds keeps its settings.
  if [ ! -e /etc/docker/daemon.json ]; then
    as_root mkdir -p /etc/docker
    printf '{ "features": { "containerd-snapshotter": true } }\n' | as_root tee /etc/docker/daemon.json >/dev/null
  fi
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" iptables >/dev/null
  if [ "$(id -u)" != 0 ]; then
    as_root usermod -aG docker "$(id -un)"
    say "added $(id -un) to the group docker; log in again for it to take effect"
  fi
}

log=/var/log/dockerd.log
# shellcheck disable=SC2016 # the inner shell expands these; setsid: the engine outlives this script, make and the terminal.
start_dockerd() { as_root sh -c 'setsid dockerd >>"$0" 2>&1 </dev/null & echo $!' "$log"; }

# Forgets what the build cache had: what only that held, containerd would keep for ever.
release_cache() {
  local address=/run/containerd/containerd.sock
  [ -S "$address" ] || address=/run/docker/containerd/containerd.sock
  as_root ctr --address "$address" --namespace moby leases list --quiet | sed -nE '/^[0-9a-z]{25}(-variants)?$/p' |
    as_root xargs -r -n 200 ctr --address "$address" --namespace moby leases delete >/dev/null
}

start_engine() {
  local deadline=$((SECONDS + 150)) dockerd='' starts=1 last
  if [ -d /run/systemd/system ]; then
    as_root systemctl enable --now docker
  else
    dockerd=$(start_dockerd)
  fi
  until answers; do
    # A process that has ended has no exe, even if not yet reaped.
    if [ -n "$dockerd" ] && ! as_root test -e "/proc/$dockerd/exe"; then
      last=$(as_root tail -n 1 "$log")
      [ "$last" = "context deadline exceeded" ] || die "the engine ends as soon as it is started: $last"
      # Looking through its build cache took more than 20 s, as on a slow disk. What it read is in memory the next time.
      if [ "$starts" = 3 ]; then
        say "the engine gives up looking through its build cache, which engines before 27.4 do where it has many layers" \
          "(moby/moby#48569); the cache is removed, the images stay"
        as_root rm -r /var/lib/docker/buildkit
      fi
      [ "$starts" -lt 4 ] || die "the engine gives up looking through its build cache; look at $log"
      starts=$((starts + 1)) dockerd=$(start_dockerd)
    fi
    [ "$SECONDS" -lt "$deadline" ] || die "the engine did not answer within 150 s; look at $log or journalctl -u docker"
    sleep 0.5
  done
  [ "$starts" -lt 4 ] || release_cache || say "what the cache held stays on the disk: ctr, which lets go of it, has failed"
}

docs=https://docs.docker.com/engine/install/
may_install() { case "$ID" in debian | ubuntu) as_root true 2>/dev/null ;; *) false ;; esac; }

may_install || die "no container engine answers; install or start one as $docs says, then try again"
what="start the container engine"
command -v dockerd >/dev/null || what="install the container engine from the packages of $PRETTY_NAME, and start it"
if [ "${1:-}" != engine ]; then # which asks for it
  say "no container engine answers; about to $what"
  case "${MAKEFLAGS:-}" in *--jobserver*) [ -t 0 ] || [ ! -t 2 ] || die "make -j lets nobody be asked; type make engine first" ;; esac
  if [ -t 0 ]; then
    read -r -p "Go on? [Y/n] " answer
    case "$answer" in "" | y | Y | yes) ;; *) die "nothing was installed; see $docs for other ways" ;; esac
  fi
fi
if ! command -v dockerd >/dev/null; then
  say "installing: docker, Buildx and Compose from the packages of $PRETTY_NAME"
  install_engine
fi
start_engine
say "ready: engine $(as_root docker version --format '{{.Server.Version}}'), Buildx $(docker buildx version | awk '{print $2}'), Compose $(docker compose version --short)"
