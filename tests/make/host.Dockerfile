# Another machine for the tests: Debian testing with today's engine, an ordinary user, another name, language, time zone
# and image store. The tests give it the bootstrapped Debian to start from, and run it with --privileged.

FROM scratch AS bootstrap
ADD pyrlab-debian.tar /
RUN --mount=type=bind,from=tools,source=model/events.py,target=/pyrlab/tools/pyrlab/model/events.py \
    --mount=type=bind,from=tools,source=model/problem.py,target=/pyrlab/tools/pyrlab/model/problem.py \
    --mount=type=bind,from=tools,source=model/proxies.py,target=/pyrlab/tools/pyrlab/model/proxies.py \
    --mount=type=bind,from=tools,source=steps/network.py,target=/pyrlab/tools/pyrlab/steps/network.py \
    --mount=type=secret,id=ca,mode=0444 --mount=type=secret,id=network <<EOF
set -eux
export DEBIAN_FRONTEND=noninteractive PYTHONPATH=/pyrlab/tools
python3 -m pyrlab.steps.network run apt-get -q=2 update
python3 -m pyrlab.steps.network run apt-get -q=2 install -y mmdebstrap
python3 -m pyrlab.steps.network bootstrap mmdebstrap --mode=root --variant=apt --quiet \
    --aptopt='Acquire::Check-Valid-Until "false"' --include=ca-certificates,debian-archive-keyring \
    --include=docker.io,docker-cli,docker-buildx,docker-compose,iptables,iproute2,e2fsprogs,mount,passwd,git,make,python3,locales,curl,uidmap,rootlesskit,slirp4netns \
    --customize-hook='echo "de_DE.UTF-8 UTF-8" >"$1/etc/locale.gen"; chroot "$1" locale-gen' \
    forky /host "$(sed -n '1s/trixie/forky/p' /etc/apt/sources.list)"
rm -rf /host/dev
EOF

FROM scratch
COPY --from=bootstrap /host/ /
COPY --chmod=755 host.sh /usr/local/bin/
ENV LANG=de_DE.UTF-8 TZ=Pacific/Kiritimati
ENTRYPOINT ["host.sh"]
