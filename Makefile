# Sets up and calls; every target is a plain command that can be run without make.
PYTHON ?= python3
# Further options of what `make serve`, `make test`, `make evaluate`, `make loadtest` or `make bench` calls
ARGS ?=
# For `make evaluate` and `make model`: the images, the weights to start from (a file, or timm's hub), further overrides
# of what is trained, where folds go
DATA ?=
WEIGHTS ?= imagenet
RECIPE ?=
EVALUATION ?= runs/evaluation
# For `make images`: what builds as `docker build` does, what runs as `docker run` does, and further options to build.
# With podman: IMAGE_BUILDER='podman build --format docker' IMAGE_RUNNER='podman run'; its own format has no HEALTHCHECK
IMAGE_BUILDER ?= docker build
IMAGE_RUNNER ?= docker run
IMAGE_ARGS ?=

# Serving alone needs no torch: two environments, so that `make serve` stays small
SERVE := .venv-serve
DEV := .venv
# The images bring what they need themselves: who asks them needs no torch either
ASK := .venv-images

.DEFAULT_GOAL := help
.PHONY: help serve test lint evaluate model images loadtest bench clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

serve: $(SERVE)/installed ## Serve model_store/vinegrape.mar in the foreground; ARGS='--rest-port 9080'
	@exec $(SERVE)/bin/vinegrape serve $(ARGS)

test: $(DEV)/installed ## Run all tests; coverage is printed, and written to htmlcov/
	$(DEV)/bin/pytest --cov --cov-report=term --cov-report=html $(ARGS)

lint: $(DEV)/installed ## Check style and types
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

evaluate: $(DEV)/installed ## Cross-validate the recipe: DATA=folder [WEIGHTS=file] [RECIPE=overrides]; an hour on two cores. Goes on where it was cut off
	@$(need_data)
	$(DEV)/bin/vinegrape evaluate '$(EVALUATION)' $(recipe) $(ARGS)

model: evaluate ## Then train on all images, export and archive; some minutes more
	run=runs/$$(date +%Y-%m-%d_%H-%M-%S) && \
	$(DEV)/bin/vinegrape train 'evaluation="$(EVALUATION)"' run_dir=$$run $(recipe) && \
	$(DEV)/bin/vinegrape export $$run $$run/export && \
	$(DEV)/bin/vinegrape archive $$run/export model_store/vinegrape.mar

images: version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
images: labels = --build-arg VERSION=$(version) --build-arg REVISION=$(shell git describe --always --abbrev=40 --exclude='*' --dirty) \
	--build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ)
images: $(ASK)/installed ## Build the images that serve and train, start both and ask them; needs Docker
	$(IMAGE_BUILDER) -f Dockerfile.serve -t vinegrape-serve:$(version) $(labels) $(IMAGE_ARGS) .
	$(IMAGE_BUILDER) -f Dockerfile.train -t vinegrape-train:$(version) $(labels) $(IMAGE_ARGS) .
	IMAGE_RUNNER='$(IMAGE_RUNNER)' SERVE_IMAGE=vinegrape-serve:$(version) TRAIN_IMAGE=vinegrape-train:$(version) \
	$(ASK)/bin/pytest tests/images/serve.py tests/images/train.py

loadtest: $(DEV)/installed ## Load a server that it starts, or HOST=http://...; thresholds decide. ARGS: Locust's options
	$(DEV)/bin/python -m vinegrape_loadtests.local_run $(if $(HOST),--host '$(HOST)') $(ARGS)

bench: $(DEV)/installed ## Measure what serving costs, and others beside it; half an hour. Needs wrk and h2load. ARGS: its options
	$(DEV)/bin/vinegrape bench $(ARGS)

clean: ## Remove the environments and what tests wrote; runs/ stays
	rm -rf $(SERVE) $(DEV) $(ASK) .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov

$(SERVE)/installed: pyproject.toml constraints.txt
	$(call venv,$(SERVE),.,about 360 MB and half a minute)

$(DEV)/installed: pyproject.toml constraints.txt
	$(call venv,$(DEV),'.[train$(comma)loadtest$(comma)bench$(comma)test]',torch among them: some 6 GB and a few minutes)

$(ASK)/installed: pyproject.toml constraints.txt
	$(call venv,$(ASK),'.[loadtest$(comma)test]',about 650 MB and a minute)

comma := ,
recipe = 'data.dir="$(DATA)"' 'weights="$(WEIGHTS)"' $(RECIPE)
need_data = test -d '$(DATA)' || { echo "make $@ needs DATA=FOLDER, a folder a class. To get it: .venv/bin/vinegrape data fetch" >&2; exit 2; }
define venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vinegrape needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Say which: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up $(1) with Python packages; $(3)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e $(2)
	@touch $@
endef
