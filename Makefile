# Everything that a fresh machine with Python and make needs: `make night`, then `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SKY    ?= sky
OUT    ?= night
OBJECTS ?= 400
BUNDLE ?= own.safetensors

.PHONY: env night test bench train lint clean

env: $(VENV)/.ready

# Wheels that the machine keeps for pip (PIP_FIND_LINKS) are found by uv as well.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" UV_COMPILE_BYTECODE=1 \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[sky,train,test,dev]'
	touch $@

night: env
	$(BIN)/gzscale simulate $(SKY) --survey sdss --objects $(OBJECTS) --seed 1
	$(BIN)/gzscale night $(SKY)/night.yaml --output $(OUT)

test: env
	$(BIN)/python -m pytest

bench: env
	$(BIN)/python tests/benchmarks/run.py

# A bundle from labelled pictures: make train LABELS=votes.csv IMAGES=images BUNDLE=own.safetensors
train: env
	$(if $(LABELS),,$(error make train needs LABELS, a table of votes, and IMAGES: LABELS=votes.csv IMAGES=images BUNDLE=own.safetensors))
	$(if $(IMAGES),,$(error make train needs IMAGES, a folder of pictures or a night's output: IMAGES=images))
	$(BIN)/gzscale train morphology --labels $(LABELS) --images $(IMAGES) -o $(BUNDLE)

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(SKY) $(OUT) bench
