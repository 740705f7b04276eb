# Each target makes what it needs: a machine with Python 3.11 or newer and a package registry is enough.
PYTHON ?= python3
DATA ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO := checkpoints/demo
MODELS := $(addprefix $(DEMO)-,$(addsuffix .pt,vanilla fgsm gaussian batchout))
DATA_DIR := $(if $(DATA),--data-dir $(DATA))

.PHONY: demo test check format docs peers numbers clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,all]'
	touch $@

# Four models on 4 000 digits each, attacked, evaluated and compared; under 5 minutes on 2 cores once installed.
# `make demo DATA=DIR` takes the digits from the MNIST in DIR.
demo: $(VENV)/.installed
	for method in vanilla fgsm gaussian batchout; do \
	  $(BIN)/robustcli train --method $$method --dataset mnist --limit 4000 $(DATA_DIR) --output $(DEMO)-$$method.pt --force || exit; \
	done
	$(BIN)/robustcli attack --attack fgsm --eps 0.3 --limit 1000 $(DATA_DIR) --gallery $(DEMO)-fgsm.png
	$(BIN)/robustcli evaluate --attack deepfool --iters 5 --limit 1000 $(DATA_DIR)
	$(BIN)/robustcli compare $(MODELS) --limit 500 $(DATA_DIR)

test: $(VENV)/.installed-dev
	$(BIN)/pytest --numprocesses auto --dist loadfile --cov --cov-report=term

# What CI runs beside the tests.
check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pages of docs/ as a site in .site; a warning is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --quiet

# A second environment with foolbox, ART and torchattacks, on top of the first; runs the reference tests in it.
peers: $(VENV)/.installed-dev
	sh scripts/peers.sh

# Everything that is quoted: a day of training on 2 cores, then what README, docs and configs say of it, and the zoo.
numbers: $(VENV)/.installed-dev
	$(BIN)/robustcli reproduce all --no-zoo $(DATA_DIR)
	$(BIN)/python benchmarks/training.py $(DATA_DIR) --json results/reproduction/training-speed.json
	$(BIN)/python scripts/make_zoo.py $(DATA_DIR)
	$(BIN)/python scripts/make_verdict.py $(DATA_DIR)
	$(BIN)/robustcli reproduce fig1 --report docs/reproduction.md
	$(BIN)/python scripts/stamp_numbers.py --sample

clean:
	rm -rf $(VENV) .venv-peers .site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
