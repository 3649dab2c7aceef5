#!/usr/bin/env bash
# Makes two CRAN-shaped repositories of real packages, in a container of rlab as root: cran.sh FOLDER
# FOLDER/source holds sources, FOLDER/binary what R makes of those that build. The packages are CRAN's own,
# from Debian's archive, but for their versions, which are newer than Debian's.
set -euo pipefail

folder=$1
mkdir -p "$folder/source/src/contrib" "$folder/binary/src/contrib" /tmp/sources
sed 's/^deb /deb-src /' /etc/apt/sources.list >/etc/apt/sources.list.d/sources.list
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends dpkg-dev libglpk-dev r-base-dev r-cran-lattice >/dev/null
cd /tmp/sources
apt-get source -qq --download-only --tar-only r-cran-bitops r-cran-docopt r-cran-glue r-cran-zoo

unpack() { # PACKAGE VERSION: the source of PACKAGE, with another version, in the folder PACKAGE
  rm -rf "$1"
  mkdir "$1"
  tar xf ./r*-"$1"_*.orig.tar.* --directory "$1" --strip-components 1
  sed -i "s/^Version:.*/Version: $2/" "$1/DESCRIPTION"
}
pack() { tar czf "$folder/source/src/contrib/$1_$2.tar.gz" "$1"; }

for package in docopt glue zoo; do
  unpack "$package" 99.1
  pack "$package" 99.1
  R CMD INSTALL --build --library=/tmp "$package" >/dev/null
  mv "$package"_99.1_R_*.tar.gz "$folder/binary/src/contrib/${package}_99.1.tar.gz"
done
unpack bitops 99.1
sed -i '1i this is not C' bitops/src/*.c
pack bitops 99.1
mkdir -p "$folder/source/src/contrib/Archive/bitops"
unpack bitops 98.1
sed -i '1i #include <glpk.h>' bitops/src/*.c
pack bitops 98.1
mv "$folder/source/src/contrib/bitops_98.1.tar.gz" "$folder/source/src/contrib/Archive/bitops/"
# A binary of a library that no image has.
unpack bitops 97.1
printf '#include <glpk.h>\nconst char *wanted(void) { return glp_version(); }\n' >bitops/src/wanted.c
echo 'PKG_LIBS = -lglpk' >bitops/src/Makevars
R CMD INSTALL --build --library=/tmp bitops >/dev/null
mv bitops_97.1_R_*.tar.gz "$folder/binary/src/contrib/bitops_97.1.tar.gz"
for kind in source binary; do
  Rscript -e 'tools::write_PACKAGES(commandArgs(TRUE), type = "source")' "$folder/$kind/src/contrib"
done
chmod -R a+rX "$folder"
