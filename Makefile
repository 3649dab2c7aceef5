# pyrlab: four package lists in, layered JupyterLab images for Python and R out. `make` shows what there is.
# Parameters come from the command line, the environment, or an untracked local.mk; these are the defaults.
before := $(.VARIABLES)
-include local.mk
GIVEN := $(filter-out $(before) before,$(.VARIABLES)) \
  $(foreach name,$(before),$(if $(filter command,$(origin $(name))),$(name)))

PORT       ?= 8888                      # where pylab listens, on 127.0.0.1 only
RPORT      ?= 9999                      # where rlab listens, likewise
PYRPORT    ?= 7777                      # where pyrlab listens, likewise
TBPORT     ?= 6006                      # TensorBoard of pylab, likewise
FILES      ?= ~/notebooks               # your notebooks, at ~/work in the labs; made if missing
TZ         ?=                           # the labs' time zone, as in Europe/Berlin; empty: this machine's
SHM        ?=                           # the most that a lab may have in /dev/shm, as in 2g; empty: half of the memory
PYTHONBASE ?= python:3.14-slim-trixie   # the Python image to start from
BASE       ?= auto                      # registry: pull PYTHONBASE; debian: bootstrap from Debian's archive
CRAN       ?=                           # where R packages that Debian lacks come from; empty: R's own default
BIOC       ?=                           # a mirror of Bioconductor; empty: R's own default
APTPROXY   ?=                           # apt-cacher-ng or any proxy for apt, as in http://172.17.0.1:3142
PIPPROXY   ?=                           # a devpi server or any package index, as in http://172.17.0.1:3141
PIPHOST    ?=                           # the index's host, trusted without TLS; empty: of PIPPROXY if that is http
http_proxy ?= $(value HTTP_PROXY)             # a company's proxy, for builds and labs
https_proxy ?= $(value HTTPS_PROXY)           # likewise for TLS; often the same
no_proxy   ?= $(value NO_PROXY)               # what is reached without them
CACERT     ?=                           # certificates to trust besides this machine's own, for builds and labs
TAG        ?= latest                    # of the images
PROJECT    ?= pyrlab                    # prefix of containers and volumes, for two sets side by side
ENGINE     ?=                           # external: never install or start a container engine here
HOST       ?=                           # user@server, for make tunnel
SSH_OPTIONS ?=                          # more options for its ssh, as in -p 2222
P          ?=                           # packages of make upgrade or manifest, tests of make test or prove
A          ?= HEAD                      # what make diff compares: a tag, image, archive or git revision
B          ?= $(TAG)                    # with what
APTPORT    ?= 3142                      # where the apt-cacher-ng of make proxies listens
PIPPORT    ?= 3141                      # and its devpi server
SAVE       ?=                           # yes: make proxies writes its parameters to local.mk
RUNS       ?= 3                         # how often make bench measures, half an hour each

# What the environment has stays as it is; elsewhere a $ that begins no $(…) and no ${…} is meant as it stands, too, as in
# $HOME or a password. Blanks around a value are taken off for whatever a recipe runs, but strip would take off those in
# a path, too: of these, as the quotation marks of all, they are where they are read (pyrlab/host/parameters.py).
PARAMETERS := PORT RPORT PYRPORT TBPORT FILES TZ SHM PYTHONBASE BASE CRAN BIOC APTPROXY PIPPROXY PIPHOST http_proxy https_proxy \
  no_proxy CACERT TAG PROJECT ENGINE HOST SSH_OPTIONS P A B APTPORT PIPPORT SAVE RUNS
parenthesis := $$(
brace := $${
meant = $(if $(findstring $(parenthesis),$(value $1))$(findstring $(brace),$(value $1)),$($1),$(subst $$$$,$$,$(value $1)))
$(foreach name,$(PARAMETERS),$(if $(filter environment,$(origin $(name))),,\
  $(eval override $(name) := $$(if $$(filter FILES CACERT,$(name)),$$(call meant,$(name)),$$(strip $$(call meant,$(name)))))))
export GIVEN $(PARAMETERS)
ifeq ($(TZ),)
unexport TZ # for programs of this machine an empty one is UTC
endif

# Whatever the language of this machine is, files and sentences are UTF-8, and modules are looked for here.
RUN := PYTHONUTF8=1 PYTHONIOENCODING= PYTHONSAFEPATH= PYTHONDONTWRITEBYTECODE=1 python3 -m pyrlab.host

.DEFAULT_GOAL := help
# The images of images.toml; what is no lab, pyrlab refuses to start.
IMAGES := $(shell while IFS='[. ]' read -r before kind name after; do \
  if [ "$$before$$kind" = images ]; then echo "$$name"; fi; done <images.toml)

TARGETS := help doctor engine engine-ready build build_base build_rbase $(IMAGES) $(IMAGES:%=build_%) $(IMAGES:%=start_%) \
  $(IMAGES:%=stop_%) $(IMAGES:%=url_%) $(IMAGES:%=logs_%) $(IMAGES:%=bash_%) stop list lock outdated upgrade manifest \
  diff sbom tunnel proxies stop_proxies test check prove lint bench clean
.PHONY: $(TARGETS)

# Who types make upgrade pandas means P=pandas: what is no target is said before everything is upgraded.
STRANGE := $(filter-out $(TARGETS) .venv/ready,$(MAKECMDGOALS))

##@ Set up
help: ## Show this help
	@$(RUN).help

doctor: ## Say what is missing on this machine, and the command that mends it
	@$(RUN).doctor

engine: ## Install and start a container engine from the distribution's packages
	@$(RUN).ready engine

engine-ready:
	@$(RUN).ready

##@ Work in a lab: LAB
$(IMAGES): %: engine-ready ## Build what is missing, start the lab, open the browser
	@$(RUN).lab check $* && $(RUN).build $* && $(RUN).lab open $*

$(IMAGES:%=start_%): start_%: engine-ready ## The same without the browser, as on a server
	@$(RUN).lab check $* && $(RUN).build $* && $(RUN).lab start $*

$(IMAGES:%=stop_%): stop_%: ## Stop the lab; only its kernels end
	@$(RUN).lab stop $*

$(IMAGES:%=url_%): url_%: ## Print its URL, with its token
	@$(RUN).lab url $*

$(IMAGES:%=logs_%): logs_%: ## Follow its log
	@$(RUN).lab logs $*

$(IMAGES:%=bash_%): bash_%: ## Open a shell in it
	@$(RUN).lab bash $*

stop: ## Stop all labs
	@$(RUN).lab stop

list: ## List the running labs: URL, notebooks folder, memory
	@$(RUN).lab list

tunnel: ## Forward the labs of a server to this machine: make tunnel HOST=user@server
	@$(RUN).lab tunnel

##@ Build the images
build: engine-ready ## Build all images that a changed list makes necessary
	@$(RUN).build

$(IMAGES:%=build_%): build_%: engine-ready ## Build one of them
	@$(RUN).build $*

build_base: build_pyrlab-base
build_rbase: build_rlab-base

clean: ## Remove the labs of PROJECT with their settings, the images of TAG and the build cache; never a notebook
	@$(RUN).clean

##@ Know what is inside
lock: engine-ready ## Resolve the four lists into the lock files beside them; make build does it where a list changed
	@$(RUN).upgrade lock

outdated: engine-ready ## List what an upgrade would change
	@$(RUN).upgrade outdated

upgrade: engine-ready ## Upgrade everything, or some: make upgrade P="pandas ggplot2"
	@$(foreach name,$(STRANGE),$(RUN).help $(name) &&) $(RUN).upgrade upgrade $$P

manifest: engine-ready ## List the packages of the images: version, size, licence, why; make manifest P=numpy
	@$(RUN).manifest show $$P

diff: engine-ready ## Say what differs: make diff A=v1 B=latest, tags, images, archives or git revisions
	@$(RUN).diff

sbom: engine-ready ## Write the manifests as CycloneDX and SPDX into sbom/
	@$(RUN).manifest sbom

##@ Behind a proxy
proxies: engine-ready ## Start caches of Debian and Python packages for this machine's builds
	@$(RUN).proxies start

stop_proxies: ## Stop them; what they hold stays
	@$(RUN).proxies stop

##@ Develop pyrlab
test: engine-ready .venv/ready ## Check, then try images, labs, notebooks, a browser, and whatever rebuilds; or some: make test P=tests/tiny
	@tests/setup.sh
	@$(if $(P),,tests/lint.sh &&) tests/run.sh $(or $(P),check 'built tiny')

check: .venv/ready ## Check what needs no engine: style, types, and the tests of single parts
	@tests/lint.sh
	@tests/run.sh check

# What begins with an engine that has nothing runs by itself, the rest side by side.
PROVED = $(patsubst %,prove/%,$(or $(P),built tiny whole))
SOON = $(filter-out prove/whole,$(PROVED))
prove: engine-ready .venv/ready ## Prove what takes long: rare ways in (P=built), other machines (P=tiny), all from nothing (P=whole)
	@tests/setup.sh
	@tests/run.sh $(if $(SOON),'$(SOON)') $(filter prove/whole,$(PROVED))

lint: .venv/ready ## Check the style and types of every file
	@tests/lint.sh

bench: engine-ready .venv/ready ## Measure pyrlab beside the plain way, and write bench/RESULTS.md
	@tests/setup.sh
	@PYTHONPATH=.:tests:tests/make .venv/bin/python bench/bench.py $(RUNS)

.venv/ready: tests/requirements.txt tests/venv.sh
	@$(RUN).ready checkout
	@tests/venv.sh

# Whatever else is typed, but for what make looks for of its own accord.
.DEFAULT:
	@$(RUN).help $@

Makefile local.mk: ;
