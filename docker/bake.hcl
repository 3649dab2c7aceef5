# The build of the four images. Every variable is set by `make build`, which also puts the Dockerfiles of
# docker/ together into the one named here; to look at what BuildKit is given:
# docker buildx bake -f docker/bake.hcl --print
#
#   python ── pyrlab-base ─┬─ pylab
#                          └─ rlab-base ── rlab

variable "PYTHON" { default = "target:debian" } # or docker-image://python:…
variable "CACERT" { default = "" }
variable "CRAN" { default = "" }
variable "BIOC" { default = "" }
variable "TAG" { default = "latest" }
variable "LOCKS" { default = ".cache/locks" }
variable "PYTHON_IMAGE" { default = "" } # the identity of PYTHON
variable "FIRST" { default = "target:unpacked" } # the Debian to bootstrap in
variable "FOLDER" { default = ".cache" }
variable "UPGRADE" { default = "" } # packages that need not stay as locked, * for all
variable "STAMP" { default = "" } # the time, so that nothing is resolved from the cache

# The Python image where no registry answers: Debian's archive, as make has bootstrapped it.
target "debian" {
  context           = ".cache"
  dockerfile-inline = "FROM scratch\nADD pyrlab-debian.tar /\nCMD [\"python3\"]\n"
  attest            = ["type=provenance,disabled=true"]
}

# What it is bootstrapped in, as make has fetched and unpacked it; the result is put beside.
target "unpacked" {
  context           = FOLDER
  dockerfile-inline = "FROM scratch\nADD first.tar /\n"
}

target "bootstrap" {
  inherits   = ["secrets"]
  contexts   = { first = FIRST }
  dockerfile = "docker/debian/Dockerfile"
  args       = { STAMP = STAMP }
  output     = ["type=local,dest=${FOLDER}"]
}

# What getting online takes comes in secrets, so that nothing of it is in an image.
target "secrets" {
  context = "."
  args    = { SOURCE_DATE_EPOCH = "1767225600" } # 2026-01-01; as in docker/build/layers.py
  secret  = concat(["id=network,env=NETWORK"], CACERT == "" ? [] : ["id=ca,src=${CACERT}"])
  attest  = ["type=provenance,disabled=true"] # provenance holds the time of the build
}

target "online" {
  inherits = ["secrets"]
  contexts = { python = PYTHON }
}

# What the one Dockerfile of .cache takes, whatever is built with it.
target "whole" {
  inherits   = ["online"]
  contexts   = { locks = LOCKS, lists = ".cache/lists" }
  dockerfile = ".cache/Dockerfile"
  args = {
    CRAN       = CRAN
    BIOC       = BIOC
    BASE       = PYTHON_IMAGE
    UV_VERSION = "0.13.8"
    PACKAGING_VERSION = "26.4"
  }
}

target "image" {
  inherits = ["whole"]
  name     = image
  matrix   = { image = ["pyrlab-base", "pylab", "rlab-base", "rlab"] }
  target   = image
  labels   = { "org.pyrlab.python" = PYTHON_IMAGE }
  tags     = ["${image}:${TAG}"]
  output   = ["type=image,oci-mediatypes=true,compression=zstd"] # half of gzip's time; engines since 23.0 pull it
}

# What the lists resolve to, into the folder of the locks.
target "lock" {
  inherits = ["whole"]
  name     = "lock-${ecosystem}"
  matrix   = { ecosystem = ["python", "debian", "r"] }
  target   = "lock-${ecosystem}"
  args     = { UPGRADE = UPGRADE, STAMP = STAMP }
  output   = ["type=local,dest=${LOCKS}"]
}

# What is in the images, in the standard formats.
target "sbom" {
  inherits = ["whole"]
  contexts = { manifests = ".cache/manifests" }
  target   = "sbom"
  output   = ["type=local,dest=sbom"]
}

# The caches of packages that `make proxies` starts.
target "proxies" {
  inherits   = ["online"]
  dockerfile = "docker/proxies/Dockerfile"
  tags       = ["pyrlab-proxies:${TAG}"]
  output     = ["type=image"]
}
