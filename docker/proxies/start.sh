#!/bin/bash
# Runs one of the two caches on a port, in the foreground: start.sh apt|pip PORT
set -euo pipefail

port=$2
echo "$port" >/tmp/port # for the health check
case $1 in
  apt)
    mkdir -p /cache/apt /cache/apt-log
    settings=/tmp/apt-cacher-ng # its own file for the password that the proxy's address may have
    rm -rf "$settings"
    cp -r /etc/apt-cacher-ng "$settings"
    if [ -n "${http_proxy:-}" ]; then echo "Proxy: $http_proxy" >"$settings/zz_proxy.conf"; fi
    options=(ForeGround=1 "Port=$port" CacheDir=/cache/apt LogDir=/cache/apt-log UnbufferLogs=1 SocketPath=)
    options+=('AllowUserPorts=80 443' 'PassThroughPattern=:443$' CAfile=/etc/ssl/certs/ca-certificates.crt)
    exec apt-cacher-ng -c "$settings" "${options[@]}"
    ;;
  pip)
    if [ ! -e /cache/pip/.serverversion ]; then
      # Else devpi would fetch the names of all projects there are before it gives the first; devpi-init has no option.
      /opt/devpi/bin/python - --serverdir /cache/pip --root-passwd "$(head -c 32 /dev/urandom | base64)" <<EOF
from devpi_server import init, main
main._pypi_ixconfig_default["mirror_no_project_list"] = True
init.init()
EOF
    fi
    options=(--serverdir /cache/pip --host 0.0.0.0 --port "$port" --restrict-modify root --request-timeout 30) # sooner than uv's patience
    exec devpi-server "${options[@]}"
    ;;
esac
