#!/bin/sh
# Puts the run-time files and the user's account into /pyrlab/files, with the owner, mode and time that they have on every
# machine. They are copied, since engines do not agree on what a step that changes a file has changed besides.
set -eux
cd /pyrlab/run
install -D -m 755 -t /pyrlab/files/usr/local/bin \
    start.sh start-notebook.py run-hooks.sh populate-home-dir.sh _docker_stacks_log.sh run-one-constantly fix-permissions
ln -s start-notebook.py /pyrlab/files/usr/local/bin/start-notebook.sh
ln -s start-notebook.py /pyrlab/files/usr/local/bin/start-singleuser.py
ln -s start-notebook.py /pyrlab/files/usr/local/bin/start-singleuser.sh
mkdir /pyrlab/files/usr/local/bin/start-notebook.d /pyrlab/files/usr/local/bin/before-notebook.d
mkdir /pyrlab/files/opt
ln -s venv /pyrlab/files/opt/conda # charts and recipes name it
sed -i 's/^#force_color_prompt=yes/force_color_prompt=yes/' /etc/skel/.bashrc
cp -r /etc/skel /pyrlab/files/opt/default-home
install -D -m 755 typst_cli.py /pyrlab/files/opt/venv/bin/typst # pandoc calls it by this name
install -D -m 644 -t /pyrlab/files/etc/jupyter jupyter_server_config.py contract.py trial.py
install -D -m 755 -t /pyrlab/files/etc/jupyter healthcheck.sh
install -D -m 644 -t /pyrlab/files/opt/venv/share/jupyter/lab/settings overrides.json page_config.json # no nodejs, no build
install -D -m 644 -t /pyrlab/files/opt/venv/etc/jupyter jupyter_config.json
site=$(echo /opt/venv/lib/python3*/site-packages)
mkdir -p "/pyrlab/files$site"
# A terminal in JupyterLab is a login shell, for which /etc/profile sets PATH anew.
mkdir -p /pyrlab/files/etc/profile.d
# shellcheck disable=SC2016 # what is written is meant to be expanded there
echo 'PATH=/opt/venv/bin:$PATH; [ -w /opt/venv/lib ] || PATH=~/.local/bin:$PATH' >/pyrlab/files/etc/profile.d/pyrlab.sh
cp -r pdf /pyrlab/files/opt/venv/lib/pyrlab
install -m 644 -t /pyrlab/files/opt/venv/lib/pyrlab pyrlab_user.py pyrlab_memory.py
# Of two exporters named "pdf" nbconvert takes the first on Python's path: ours must stand before site-packages. What
# root installs with pip, as child images do, stays writable for the group, and so for the user.
cat >"/pyrlab/files$site/pyrlab.pth" <<'PTH'
import sys; sys.path.insert(0, "/opt/venv/lib/pyrlab")
import os; os.access("/opt/venv/lib", os.W_OK) or sys.flags.isolated or __import__("pyrlab_user")
import os, sys; os.getuid() or "pip" not in "".join(sys.orig_argv[1:3]) or os.umask(os.umask(0o022) & ~0o020)
PTH
chown -R 1000:100 /pyrlab/files/opt/venv
find /pyrlab/files/opt/venv -type f -exec chmod u=rwX,g=rwX,o=rX {} +
find /pyrlab/files/opt/venv -type d -exec chmod 2775 {} +
useradd --no-log-init --create-home --shell /bin/bash --uid 1000 --gid 100 jovyan
# Devcontainers give jovyan and every group 100 in this file the numbers of the host's user; so written, this one stays,
# and with it jovyan's right to write to the environment.
echo environment:x:0100:jovyan >>/etc/group
sed -i -E 's/^(passwd|group|shadow):.*files/& extrausers/' /etc/nsswitch.conf
touch /var/lib/extrausers/passwd
chmod 666 /var/lib/extrausers/passwd
cd /
cp --archive --parents etc/passwd etc/group etc/shadow etc/subuid etc/subgid etc/nsswitch.conf home/jovyan \
    var/lib/extrausers/passwd /pyrlab/files
# A cluster runs the lab as any user, of group 0. Where somebody mounts a file in .jupyter, that stays the user's.
install -d -o 1000 -g 100 -m 2777 /pyrlab/files/home/jovyan
install -d -o 1000 -g 100 -m 2777 /pyrlab/files/home/jovyan/work /pyrlab/files/home/jovyan/.jupyter
find /pyrlab/files -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +
