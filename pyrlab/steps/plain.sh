#!/bin/sh
# Makes the packages of an image where a step is given nothing but the checkout and the image's parent: plain.sh IMAGE.
set -eu
cp /pyrlab/tools/docker/pyrlab-base/dpkg.cfg /pyrlab/dpkg.cfg
sh /pyrlab/tools/pyrlab/steps/tools.sh
exec sh /pyrlab/tools/pyrlab/steps/run.sh plain "$1"
