#!/bin/sh
# Makes the packages of an image where a step is given nothing but the checkout and the image's parent: plain.sh IMAGE.
set -eu
cd /pyrlab/context
cp docker/pyrlab-base/dpkg.cfg /pyrlab
mkdir /pyrlab/tools
cp -r pyrlab /pyrlab/tools
sh /pyrlab/tools/pyrlab/steps/tools.sh
exec sh /pyrlab/tools/pyrlab/steps/run.sh plain "$1"
