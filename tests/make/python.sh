#!/usr/bin/env bash
# Makes /slim, a Python image as registries have them: Debian is installed first, then manual pages, documentation and
# locales are deleted and dpkg is told to leave them out, and a Python of its own, without bytecode, is in /usr/local.
# Besides, it has what the package "changer" of the tests is to change, and that in an archive of its own.
set -euxo pipefail

export DEBIAN_FRONTEND=noninteractive
online() { PYTHONPATH=/tools python3 -m pyrlab.steps.network "$@"; }
online run apt-get -q=2 update
online run apt-get -q=2 install -y mmdebstrap
online bootstrap mmdebstrap --mode=root --variant=minbase --quiet trixie /slim \
  --include="ca-certificates,netbase,tzdata,media-types,libbz2-1.0,libdb5.3t64,libffi8,liblzma5,libncursesw6" \
  --include="libreadline8t64,libsqlite3-0,libssl3t64,libuuid1,libexpat1,zlib1g,libzstd1"
cd /tmp
online run apt-get -q=2 download python3.13-minimal libpython3.13-minimal libpython3.13-stdlib python3-pip-whl
for package in *.deb; do dpkg-deb --extract "$package" python; done
mkdir -p /slim/usr/local/bin
cp python/usr/bin/python3.13 /slim/usr/local/bin/
ln -s python3.13 /slim/usr/local/bin/python3
cp -r python/usr/lib/python3.13 /slim/usr/local/lib/
rm -f /slim/usr/local/lib/python3.13/EXTERNALLY-MANAGED
mkdir /slim/wheels
cp python/usr/share/python-wheels/pip*.whl /slim/wheels/
wheel=$(cd /slim && echo wheels/pip*.whl)
chroot /slim python3 -B "/$wheel/pip" install --quiet --no-index --no-compile \
  --target /usr/local/lib/python3.13/dist-packages "/$wheel"

cd /slim
rm -rf wheels dev etc/hostname etc/resolv.conf
find usr/local -name '__pycache__' -prune -exec rm -r {} +
printf 'path-exclude /usr/share/%s/*\n' doc info locale man lintian/overrides >etc/dpkg/dpkg.cfg.d/docker
echo 'path-include /usr/share/doc/*/copyright' >>etc/dpkg/dpkg.cfg.d/docker
find usr/share/man usr/share/info usr/share/locale usr/share/lintian/overrides -mindepth 1 ! -type d -delete || true
find usr/share/doc -type f ! -name copyright -delete
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/docker-apt-speedup
empty='"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true";'
printf 'DPkg::Post-Invoke { %s };\nAPT::Update::Post-Invoke { %s };\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n' \
  "$empty" "$empty" >etc/apt/apt.conf.d/docker-clean
echo 'Acquire::GzipIndexes "true";' >etc/apt/apt.conf.d/docker-gzip-indexes
echo 'Acquire::Languages "none";' >etc/apt/apt.conf.d/docker-no-languages
# The sources in the form of deb822.
sed -n 's,^deb \(\S*\) \(\S*\) main$,Types: deb\nURIs: \1\nSuites: \2\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n,p' \
  etc/apt/sources.list >etc/apt/sources.list.d/debian.sources
rm etc/apt/sources.list

mkdir -p srv/given/folder srv/given/emptied srv/archive /tmp/changer/DEBIAN
for name in gone file-to-folder file-to-link owner mode time attribute folder/file emptied/file; do
  echo given >"srv/given/$name"
done
ln -s mode srv/given/link-to-file
ln -s mode srv/given/link-to-folder
mkdir srv/given/folder-gone srv/given/folder-to-link
touch srv/given/folder-gone/file srv/given/folder-to-link/file
printf 'Package: changer\nVersion: 1\nArchitecture: all\nMaintainer: test\nDescription: test\n' >/tmp/changer/DEBIAN/control
install -m 755 /pyrlab/changer.postinst /tmp/changer/DEBIAN/postinst
dpkg-deb --build /tmp/changer srv/archive/changer.deb
{
  cat /tmp/changer/DEBIAN/control
  echo "Filename: ./changer.deb"
  echo "Size: $(stat --format %s srv/archive/changer.deb)"
  echo "SHA256: $(sha256sum srv/archive/changer.deb | cut -d ' ' -f 1)"
} >srv/archive/Packages
echo 'deb [trusted=yes] file:/srv/archive ./' >etc/apt/sources.list.d/archive.list
