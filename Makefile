# Sets up and calls; every target is a plain command that can be run without make.
PYTHON ?= python3
# For `make serve`, further options of `vinegrape serve`; for `make test`, of pytest
ARGS ?=
# For `make model`: the images, and the weights to start from (a file, or timm's hub)
DATA ?=
WEIGHTS ?= imagenet

# Serving alone needs no torch: two environments, so that `make serve` stays small
SERVE := .venv-serve
DEV := .venv

.DEFAULT_GOAL := help
.PHONY: help serve test lint model clean

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

model: $(DEV)/installed ## Train, export and archive: DATA=folder [WEIGHTS=file]; under an hour on two cores
	@test -d '$(DATA)' || { echo "make model needs DATA=FOLDER, a folder a class. To get it: .venv/bin/vinegrape data fetch" >&2; exit 2; }
	run=runs/$$(date +%Y-%m-%d_%H-%M-%S) && \
	$(DEV)/bin/vinegrape train 'data.dir="$(DATA)"' 'weights="$(WEIGHTS)"' run_dir=$$run && \
	$(DEV)/bin/vinegrape export $$run $$run/export && \
	$(DEV)/bin/vinegrape archive $$run/export model_store/vinegrape.mar

clean: ## Remove the environments and what tests wrote; runs/ stays
	rm -rf $(SERVE) $(DEV) .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov

$(SERVE)/installed: pyproject.toml constraints.txt
	$(call venv,$(SERVE),.,about 360 MB and half a minute)

$(DEV)/installed: pyproject.toml constraints.txt
	$(call venv,$(DEV),'.[train$(comma)test]',torch among them: some 6 GB and a few minutes)

comma := ,
define venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vinegrape needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Say which: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Setting up $(1) with Python packages; $(3)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e $(2)
	@touch $@
endef
