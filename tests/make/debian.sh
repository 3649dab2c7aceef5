#!/usr/bin/env bash
# Makes an archive of packages that meet each other and what is there in every way that dpkg knows, and installs the
# older ones. Writes /srv/archive and, for later, /srv/newer.
set -euo pipefail
umask 022
work=$(mktemp -d)
cd "$work"

# Begins a package in the folder $1: its version, and further lines of its control file.
begin() {
  local name=$1 version=$2
  shift 2
  rm -rf "$name"
  mkdir -p "$name/DEBIAN"
  printf '%s\n' "Package: $name" "Version: $version" "Architecture: all" "Maintainer: test <test@example.invalid>" \
    "Installed-Size: 1" "$@" "Homepage: https://example.invalid" "Description: test" " of a package." " ." \
    " Its last line." >"$name/DEBIAN/control"
}
# Puts a file at the path $2 of the package $1.
put() {
  mkdir -p "$1/$(dirname "$2")"
  echo "$2 of $1" >"$1/$2"
  touch --date=@1500000000 "$1/$2"
}
# Makes $1 executable maintainer script $2 from standard input.
script() {
  { echo '#!/bin/sh' && echo 'set -e' && cat; } >"$1/DEBIAN/$2"
  chmod 755 "$1/DEBIAN/$2"
}
# Builds the package into the archive $2.
finish() {
  (cd "$1" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | sort | xargs -r -d '\n' md5sum >DEBIAN/md5sums)
  mkdir -p "/srv/$2"
  dpkg-deb --root-owner-group --build "$1" "/srv/$2" >/dev/null
}
index() {
  for deb in "/srv/$1"/*.deb; do
    dpkg-deb --field "$deb"
    printf '%s\n' "Filename: ./$(basename "$deb")" "Size: $(stat --format %s "$deb")" \
      "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)" ''
  done >"/srv/$1/Packages"
}

# What is there before.
begin older 1 && put older usr/share/older/gone && put older usr/share/older/changed && put older usr/share/past/gone
finish older before
begin giving-way 1 && put giving-way usr/share/giving-way/file && finish giving-way before
begin watcher 1 && put watcher usr/share/watcher/file
echo 'interest-noawait /usr/share/watched' >watcher/DEBIAN/triggers
script watcher postinst <<<'ls /usr/share/watched >/var/lib/watched 2>/dev/null || true'
finish watcher before
begin guard 1 && script guard preinst <<<'dpkg-divert --package guard --rename --add /usr/bin/guarded'
put guard usr/share/guard/file && finish guard before

# What is its files: folders that are links, links of both kinds, what is left out, a name that is not ASCII.
begin plain 1 "Depends: needed (>= 1)" "Provides: virtual-plain"
put plain usr/share/plain/file && put plain usr/lib/plain/ünïcode && put plain usr/share/doc/plain/README
put plain usr/share/doc/plain/copyright && put plain usr/share/man/man1/plain.1 && put plain usr/share/doc/plain/more/x
put plain lib/plain-in-lib/file && ln -s ../share/plain/file plain/usr/lib/link && ln -s nowhere plain/usr/share/doc/link
put plain usr/share/past/again && mkdir plain/usr/share/plain/empty && chmod 4755 plain/usr/share/plain/file
ln plain/usr/share/plain/file plain/usr/share/plain/same
finish plain archive
begin needed 1 && put needed usr/share/needed/file && finish needed archive
begin scripted 1 "Depends: needed" && put scripted usr/share/scripted/file
script scripted postinst <<'END'
echo made >/var/lib/made && ln -sf made /var/lib/link-made && mkdir -p /var/lib/closed && chmod 711 /var/lib/closed
chown 1000:100 /usr/share/scripted/file
END
finish scripted archive
begin configured 1 && put configured etc/configured && echo /etc/configured >configured/DEBIAN/conffiles
finish configured archive
begin watched 1 && put watched usr/share/watched/file && finish watched archive
begin guarded 1 && put guarded usr/bin/guarded && finish guarded archive
begin diverter 1 && script diverter preinst <<<'dpkg-divert --package diverter --rename --add /usr/bin/diverted'
put diverter usr/share/diverter/file && finish diverter archive
begin diverted 1 && put diverted usr/bin/diverted && finish diverted archive
# A folder of a package that is a link here, where dpkg follows it.
mkdir /usr/share/elsewhere && ln -s elsewhere /usr/share/meeting
begin meeting 1 && put meeting usr/share/meeting/file && finish meeting archive
begin replaced 1 && put replaced usr/share/both/file && put replaced usr/share/both/own && finish replaced archive
begin replacing 1 "Replaces: replaced" && put replacing usr/share/both/file && finish replacing archive
begin older 2 && put older usr/share/older/changed && put older usr/share/older/new && finish older archive
begin in-its-place 1 "Conflicts: giving-way" && put in-its-place usr/share/in-its-place/file
finish in-its-place archive
# What changes in every way what is there and belongs to no package.
mkdir -p /srv/given/folder /srv/given/emptied /srv/given/folder-gone /srv/given/folder-to-link
for name in gone file-to-folder file-to-link owner mode time attribute {folder,emptied,folder-gone,folder-to-link}/file; do
  echo given >"/srv/given/$name"
done
ln -s mode /srv/given/link-to-file && ln -s mode /srv/given/link-to-folder
ln -s /usr/bin/python3 /usr/local/bin/python3
begin changer 1 && install -m 755 /context/changer.postinst changer/DEBIAN/postinst && finish changer archive
for name in clash-one clash-two; do
  begin $name 1 && put $name usr/share/clash/file && finish $name archive
done

begin plain 2 "Depends: needed (>= 1)" && put plain usr/share/plain/newer && finish plain newer

for name in before archive newer; do index "$name"; done
dpkg --install /srv/before/*.deb
echo 'deb [trusted=yes] file:/srv/archive ./' >/etc/apt/sources.list.d/archive.list
rm -r "$work"
