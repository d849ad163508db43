# Sets up environments and runs commands. Each target is a plain command that also works without make.
PYTHON ?= python3
# More options for the command that a target runs, for example ARGS='--rest-port 9080'
ARGS ?=
# For `make evaluate` and `make model`: the folder of images, the weights to start from (a file, or timm's hub), further
# Hydra overrides, and the folder of the folds
DATA ?=
WEIGHTS ?= imagenet
RECIPE ?=
EVALUATION ?= runs/evaluation
# For `make images`: commands that build and run images as Docker does, and more options for the build.
# With podman: IMAGE_BUILDER='podman build --format docker' IMAGE_RUNNER='podman run' (its own format has no HEALTHCHECK)
IMAGE_BUILDER ?= docker build
IMAGE_RUNNER ?= docker run
IMAGE_ARGS ?=

# Serving and linting need no torch, so each has a small environment of its own
SERVE := .venv-serve
DEV := .venv
LINT := .venv-lint
# `make images` tests images over HTTP and gRPC
IMAGES := .venv-images
# Packages in the checkout that are imported without being installed
SOURCES := cli:clients:handler:loadtests:server:training

QUICK := not live and not trains and not tools and not nightly
PARALLEL := -n 2 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help serve check test test-all lint types quick format docs proto constraints evaluate model images loadtest bench fuzz clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

serve: $(SERVE)/installed ## Serve model_store/vinegrape.mar in the foreground; ARGS='--rest-port 9080'
	@exec $(SERVE)/bin/vinegrape serve $(ARGS)

check: $(DEV)/installed $(LINT)/installed ## Format, lint, types, import rules and the quick tests: about 3 minutes
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target quick types lint

test: $(DEV)/installed ## Run all tests but the nightly ones: about 15 minutes
	$(DEV)/bin/pytest $(PARALLEL) -m 'not nightly' $(ARGS)

test-all: $(DEV)/installed ## Run all tests and measure the coverage, which is written to htmlcov/
	$(DEV)/bin/pytest $(PARALLEL) --cov --cov-report=term --cov-report=html $(ARGS)

lint: $(LINT)/installed ## Check format, style, import rules and the CI workflow
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	PYTHONPATH=$(SOURCES) $(LINT)/bin/lint-imports --no-logo
	$(LINT)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(LINT)/bin/zizmor --offline --pedantic --quiet .github

types: $(DEV)/installed ## Check types with mypy
	$(DEV)/bin/mypy

quick: $(DEV)/installed # the tests that start no server, train nothing and need no other program
	$(DEV)/bin/pytest $(PARALLEL) -m '$(QUICK)' $(ARGS)

format: $(LINT)/installed ## Format the code and mend what ruff can mend
	$(LINT)/bin/ruff check --fix .
	$(LINT)/bin/ruff format .

docs: $(DEV)/installed ## Write the generated parts of README and docs
	$(DEV)/bin/python docs/generate.py $(ARGS)

# `-Ivinegrape_client=clients` names the file as a part of the client's package: the generated stubs then import
# vinegrape_client.inference_pb2. The gateway has its own copy of the messages, because it does not import the client.
proto: $(DEV)/installed ## Generate the messages and stubs of the client and of the gateway from clients/*.proto
	$(DEV)/bin/python -m grpc_tools.protoc -Ivinegrape_client=clients \
		--python_out=clients --pyi_out=clients --grpc_python_out=clients clients/inference.proto
	cp clients/vinegrape_client/inference_pb2.py clients/vinegrape_client/inference_pb2.pyi server/vinegrape_server/gateway/
	$(DEV)/bin/python -m grpc_tools.protoc -Iclients --python_out=server/vinegrape_server/gateway \
		--pyi_out=server/vinegrape_server/gateway clients/open_inference.proto

constraints: $(DEV)/installed ## Pin the versions of all packages again, in constraints.txt; ARGS=--upgrade takes newer ones
	CUSTOM_COMPILE_COMMAND='make constraints' $(DEV)/bin/pip-compile --quiet --all-extras --strip-extras \
		--annotation-style=line --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--output-file=constraints.txt $(ARGS) pyproject.toml

evaluate: $(DEV)/installed ## Cross-validate the recipe: DATA=folder [WEIGHTS=file] [OUTLIERS=folder] [RECIPE=overrides]; hours on two cores. Can be resumed
	@$(need_data)
	$(DEV)/bin/vinegrape evaluate '$(EVALUATION)' $(recipe) $(ARGS)

model: evaluate ## Then train on all images, export and archive: some minutes more
	$(DEV)/bin/vinegrape robustness '$(DATA)' --evaluation '$(EVALUATION)'
	run=runs/$$(date +%Y-%m-%d_%H-%M-%S) && \
	$(DEV)/bin/vinegrape train 'evaluation="$(EVALUATION)"' run_dir=$$run $(recipe) && \
	$(DEV)/bin/vinegrape export $$run $$run/export && \
	$(DEV)/bin/vinegrape archive $$run/export model_store/vinegrape.mar

images: version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
images: labels = --build-arg VERSION=$(version) --build-arg REVISION=$(shell git describe --always --abbrev=40 --exclude='*' --dirty) \
	--build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ)
images: $(IMAGES)/installed ## Build the serving and the training image, start both and test them; needs Docker
	$(IMAGE_BUILDER) -f Dockerfile.serve -t vinegrape-serve:$(version) $(labels) $(IMAGE_ARGS) .
	$(IMAGE_BUILDER) -f Dockerfile.train -t vinegrape-train:$(version) $(labels) $(IMAGE_ARGS) .
	IMAGE_RUNNER='$(IMAGE_RUNNER)' SERVE_IMAGE=vinegrape-serve:$(version) TRAIN_IMAGE=vinegrape-train:$(version) \
	$(IMAGES)/bin/pytest tests/images/serve.py tests/images/train.py

loadtest: $(DEV)/installed ## Load a server that it starts, or HOST=http://...; thresholds decide. ARGS: Locust's options
	$(DEV)/bin/vinegrape loadtest $(if $(HOST),--host '$(HOST)') $(ARGS)

bench: $(DEV)/installed ## Measure what serving costs, beside other servers; half an hour. Needs wrk and h2load. ARGS: its options
	$(DEV)/bin/vinegrape bench serving $(ARGS)

fuzz: $(DEV)/installed ## Fuzz the decoder and a live server, some minutes; ARGS='--images 1000 --requests 0 --seed 7'
	$(DEV)/bin/vinegrape fuzz $(ARGS)

clean: ## Remove the environments and what tests wrote; runs/ stays
	rm -rf $(SERVE) $(DEV) $(LINT) $(IMAGES) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov

$(SERVE)/installed: pyproject.toml constraints.txt
	$(call venv,$(SERVE),-e .,about 360 MB and half a minute)

$(DEV)/installed: pyproject.toml constraints.txt
	$(call venv,$(DEV),-e '.[train$(comma)traces$(comma)dvc$(comma)loadtest$(comma)bench$(comma)fuzz$(comma)test$(comma)lint]',torch among them: some 6 GB and a few minutes)

$(LINT)/installed: pyproject.toml constraints.txt
	$(call venv,$(LINT),$(lint_packages),about 100 MB and some seconds)

$(IMAGES)/installed: pyproject.toml constraints.txt
	$(call venv,$(IMAGES),-e '.[loadtest$(comma)test]',about 650 MB and a minute)

comma := ,
recipe = 'data.dir="$(DATA)"' 'weights="$(WEIGHTS)"' $(if $(OUTLIERS),'outliers.dir="$(OUTLIERS)"') $(RECIPE)
lint_packages = $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lint"])')
need_data = test -d '$(DATA)' || { echo "make $@ needs DATA=FOLDER with one folder per class. To download it: .venv/bin/vinegrape data fetch" >&2; exit 2; }
define venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vinegrape needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Choose another: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up $(1) with Python packages; $(3)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt $(2)
	@touch $@
endef
