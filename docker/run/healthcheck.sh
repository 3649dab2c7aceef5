#!/bin/bash
# Succeeds if the Jupyter server of this container answers, at whatever port, base URL or scheme it chose, and whoever
# runs it. A probe must cost next to nothing, so this is no Python.
set -uo pipefail
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin # root may run this; the environment's is the user's
shopt -s nullglob

fail() { echo "$1"; exit 1; }

# The file by which the newest server alive has announced itself, in the runtime folder of these variables.
find_server() {
    local HOME=${HOME-/home/jovyan} JUPYTER_RUNTIME_DIR=${JUPYTER_RUNTIME_DIR-} JUPYTER_DATA_DIR=${JUPYTER_DATA_DIR-}
    local XDG_DATA_HOME=${XDG_DATA_HOME-} setting file id data
    for setting; do
        case $setting in
        HOME=* | JUPYTER_RUNTIME_DIR=* | JUPYTER_DATA_DIR=* | XDG_DATA_HOME=*) local "$setting" ;;
        esac
    done
    data=${JUPYTER_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/jupyter}
    for file in "${JUPYTER_RUNTIME_DIR:-$data/runtime}"/jpserver-*.json; do
        id=${file##*-}
        if [ -e "/proc/${id%.json}" ] && [ ! "$file" -ot "${found:-$file}" ]; then
            found=$file
        fi
    done
    [ -n "$found" ]
}

user='\u'
if [ $EUID != 0 ] && [[ ${NB_USER:-jovyan} != @(jovyan|"${user@P}") ]]; then
    fail "NB_USER=$NB_USER needs a container that is started as root"
fi
found=
if ! find_server; then # start.sh has chosen another home, or a hook another folder
    homes=("/home/${NB_USER:-jovyan}" {/tmp,/var/tmp,/dev/shm}/home-"${NB_UID:-1000}") # whom root has become hides its own
    for home in "${homes[@]}"; do
        find_server "HOME=$home" && break
    done
    for process in /proc/[0-9]*/environ; do
        [ -z "$found" ] && mapfile -d '' -t settings <"$process" && find_server "${settings[@]}"
    done 2>/dev/null
fi
[ -n "$found" ] || fail "no Jupyter server has announced itself"
server=$(<"$found")
value() { [[ $server =~ \"$1\":\ \"?([^\",}]*) ]] && printf -v "$1" %s "${BASH_REMATCH[1]}"; }
hostname='' port='' base_url='' secure='' sock=''
for name in hostname port base_url secure sock; do
    value $name
done
case $hostname in
'' | localhost | 0.0.0.0) hostname=127.0.0.1 ;;
::) hostname=::1 ;;
esac
request="GET ${base_url}api HTTP/1.0"$'\r\n'"Host: localhost"$'\r\n\r\n'
if [ -n "$sock" ]; then
    url=$sock
    status=$(curl --silent --max-time 4 --output /dev/null --write-out '%{http_code}' --unix-socket "$sock" \
        "http://localhost${base_url}api")
elif [ "$secure" = true ]; then
    url=https://$hostname:$port${base_url}api
    no_authorities=(-no-CAfile -no-CApath -no-CAstore) # the certificate names the outside host, not this one
    connect=(openssl s_client -quiet "${no_authorities[@]}" -connect "[$hostname]:$port")
    exec 3< <(exec "${connect[@]}" 2>/dev/null <<<"$request")
    read -r -t 4 -u 3 _ status
    kill $! 2>/dev/null
else
    url=http://$hostname:$port${base_url}api
    { exec 3<>"/dev/tcp/$hostname/$port"; } 2>/dev/null || fail "$url does not answer"
    printf %s "$request" >&3
    read -r -t 4 -u 3 _ status
fi
case $status in
[1234]??*) ;;
5*) fail "$url answers ${status%% *}" ;;
*) fail "$url does not answer" ;;
esac
