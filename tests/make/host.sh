#!/usr/bin/env bash
# Runs an engine of its own in a privileged container, with the image store STORE (classic or containerd), for the user
# ada, whose uid is ADA. Its network leads to the machine around it and no further.
set -euo pipefail

useradd --uid "$ADA" --no-create-home --home-dir /home/ada --shell /bin/bash --groups docker ada
chown ada: /home/ada
ip route delete default
# A file system of its own goes at once with the container; to remove what an engine has, file by file, takes minutes.
# BuildKit keeps a tenth of it for its cache.
truncate --size 300G /disk
mkfs.ext4 -q /disk
loop=$(losetup --find)
[ -e "$loop" ] || mknod "$loop" b 7 "${loop#/dev/loop}"
trap 'umount --lazy /var/lib/docker' EXIT
mkdir -p /var/lib/docker
mount -o "loop=$loop,nobarrier" /disk /var/lib/docker # and the loop ends with the mount, also where this is killed
mkdir -p /etc/docker
[ "$STORE" = containerd ] && snapshotter=true || snapshotter=false
echo "{ \"features\": { \"containerd-snapshotter\": $snapshotter } }" >/etc/docker/daemon.json
# It is started again where it ends by itself, as systemd does.
ended=
trap 'ended=yes; kill $!' TERM
until [ "$ended" ]; do
  dockerd &
  wait || true
done
wait
