# How BuildKit is asked for what make wants, one image at a time. Every variable is set by pyrlab/host/build.py; to look at
# what BuildKit is given: docker buildx bake -f docker/bake.hcl --print

# A field of an output or a secret, which are read as CSV: a path may have a comma or a quotation mark.
function "field" {
  params = [name, value]
  result = "\"${name}=${replace(value, "\"", "\"\"")}\""
}

variable "PYTHON" { default = "target:debian" } # or docker-image://python:…
variable "CACERT" { default = "" }
variable "TAG" { default = "latest" }
variable "PYTHON_IMAGE" { default = "" } # the identity of PYTHON
variable "IMAGE" { default = "" }        # the name of the image that is built
variable "PARENT" { default = "" }       # what it starts from, empty for the Python image
variable "PACKAGES" { default = "" }     # its packages, in the engine
variable "DOCKERFILE" { default = "" }   # its own
variable "FIRST" { default = "target:unpacked" } # the Debian to bootstrap in
variable "FOLDER" { default = ".cache" }
variable "LISTS" { default = "" }    # what is locked, the names of files
variable "BELOW" { default = "" }    # the same of what is there already, an image each
variable "ALSO" { default = "" }     # the other lists of the same kind, which are looked at, too
variable "SECTIONS" { default = "" } # in which its packages of each list stand
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
  dockerfile-inline = "FROM scratch\nADD pyrlab-first.tar /\n"
}

target "bootstrap" {
  inherits   = ["secrets"]
  contexts   = { first = FIRST }
  dockerfile = "docker/debian/Dockerfile"
  args       = { STAMP = STAMP }
  output     = ["type=local,${field("dest", FOLDER)}"]
}

# What getting online takes comes in secrets, so that nothing of it is in an image.
target "secrets" {
  context = "."
  args    = { SOURCE_DATE_EPOCH = "1767225600" } # 2026-01-01; as in pyrlab/steps/pieces.py
  secret  = concat(["id=network,env=NETWORK"], CACERT == "" ? [] : ["id=ca,${field("src", CACERT)}"])
  attest  = ["type=provenance,disabled=true"] # provenance holds the time of the build
}

target "online" {
  inherits = ["secrets"]
  contexts = { python = PYTHON }
}

# The steps of docker/steps, which serve every image.
target "steps" {
  inherits   = ["online"]
  dockerfile = "docker/steps/Dockerfile"
}

# The packages of IMAGE, as the plan says, on its PARENT, as an archive for docker load.
target "archive" {
  inherits = ["steps"]
  # The lowest image has no parent but Python's.
  contexts = { for name, place in { plan = ".cache/plan", parent = PARENT } : name => place if place != "" }
  target   = "archive"
  output   = ["type=tar,dest=-"]
}

# IMAGE as its Dockerfile has it, on its packages, which are in the engine by then. They take the place of `packages`, and
# of the two stages that make it, since BuildKit asks a registry for whatever these start from.
target "image" {
  context    = "."
  contexts   = { for stage in ["parent", "made", "packages"] : stage => "docker-image://${PACKAGES}" }
  dockerfile = DOCKERFILE
  args       = { SOURCE_DATE_EPOCH = "1767225600" }
  attest     = ["type=provenance,disabled=true"]
  output     = ["type=cacheonly"]
}

# The steps' own tools, for the locks.
target "tools" {
  inherits = ["steps"]
  target   = "tools"
  output   = ["type=cacheonly"]
}

# The same, checked, with its manifest.
target "checked" {
  inherits = ["steps"]
  contexts = { image = "target:image", plan = ".cache/plan" }
  target   = "checked"
  args     = { NAME = IMAGE, BASE = PYTHON_IMAGE }
  labels   = { "org.pyrlab.python" = PYTHON_IMAGE }
  tags     = ["${IMAGE}:${TAG}"]
  # In half of gzip's time, and engines since 23.0 pull it; by force, since another build may have left a layer in gzip.
  output = ["type=image,oci-mediatypes=true,compression=zstd,force-compression=true"]
}

# The manifest of PARENT, with all layers of which FOLDER has no file yet.
target "manifest" {
  context           = FOLDER
  contexts          = { parent = PARENT }
  dockerfile-inline = "FROM parent\n"
  attest            = ["type=provenance,disabled=true"]
  output            = ["type=oci,tar=false,${field("dest", FOLDER)}"]
}

# What the lists resolve to, into the folder of the locks.
target "lock" {
  inherits   = ["steps"]
  dockerfile = "docker/locks/Dockerfile"
  contexts   = { locks = ".cache/locks", lists = ".cache/lists", tools = "target:tools" }
  name     = "lock-${ecosystem}"
  matrix   = { ecosystem = ["python", "debian", "r"] }
  args = {
    TOOL     = { python = "resolve", debian = "debs", r = "r" }[ecosystem]
    FOLDER   = ecosystem == "python" ? "python" : "" # of the lists, where they find what they point at
    SECTIONS = SECTIONS
    LISTS    = LISTS
    BELOW    = BELOW
    ALSO     = ALSO
    UPGRADE  = UPGRADE
    STAMP    = STAMP
  }
  output   = ["type=local,dest=.cache/locks"]
}

# What is in the images, in the standard formats.
target "sbom" {
  inherits   = ["steps"]
  dockerfile = "docker/sbom/Dockerfile"
  contexts   = { manifests = ".cache/manifests", tools = "target:tools" }
  target   = "sbom"
  output   = ["type=local,dest=sbom"]
}

# The caches of packages that `make proxies` starts.
target "proxies" {
  inherits   = ["online"]
  dockerfile = "docker/proxies/Dockerfile"
  tags       = ["pyrlab-proxies:${TAG}"]
  output     = ["type=image,compression=uncompressed"] # nobody pulls it
}
