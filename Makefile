# Everything that a fresh machine with Python and make needs: `make night`, then `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SKY    ?= sky
OUT    ?= night
OBJECTS ?= 400
BUNDLE ?= own.safetensors
NAME ?= own-1
SAMPLE ?= sample
# Whose lens finder and redshifts are trained, and on how many simulated galaxies.
SURVEY ?= sdss
GALAXIES ?= $(GALAXIES_$(SURVEY))
GALAXIES_sdss   := 65536
GALAXIES_rubin  := 32768
LENSES_sdss     := sdss-lenses-5
LENSES_rubin    := rubin-lenses-1
# Fields of the lens finder's sample are as sharp, and differ as much, as real frames.
SEEING_sdss     := --seeing 0.85 --seeing-scatter 0.2
REDSHIFTS_sdss  := sdss-sky-1
REDSHIFTS_rubin := rubin-sky-1

.PHONY: env night test bench bench-long train train-lenses train-redshifts lint clean

env: $(VENV)/.ready

# Wheels that the machine keeps for pip (PIP_FIND_LINKS) are found by uv as well.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" UV_COMPILE_BYTECODE=1 \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[rubin,sky,train,test,dev]'
	touch $@

night: env
	$(BIN)/gzscale simulate $(SKY) --survey sdss --objects $(OBJECTS) --seed 1
	$(BIN)/gzscale night $(SKY)/night.yaml --output $(OUT)

# Two processes of one thread each; the tests of a file stay together, since they share what they set up.
test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

bench: env
	$(BIN)/python tests/benchmarks/run.py

# Two workers against one, nights of 10^4 to 10^6 objects, and every part killed at every stage: hours.
bench-long: env
	$(BIN)/python tests/benchmarks/run.py --long

# A bundle from labelled pictures: make train LABELS=votes.csv IMAGES=images BUNDLE=own.safetensors NAME=own-1
train: $(if $(LABELS),$(if $(IMAGES),env))
	@test -n "$(LABELS)" && test -n "$(IMAGES)" || \
	  { echo "make train needs both: make train LABELS=votes.csv IMAGES=images [BUNDLE=$(BUNDLE)]" >&2; exit 2; }
	$(BIN)/gzscale train morphology --labels "$(LABELS)" --images "$(IMAGES)" -o "$(BUNDLE)" --name "$(NAME)"

# The shipped lens finders: a simulated sample, whose fields differ in seeing, noise and dust, and REAL, outputs of nights
# on real frames with the geometry `sky`. Images of HELD_OUT are kept apart for the test; without REAL the test is a
# sample of another seed. For SDSS's, a night on the five fields' galaxies and one on the sources of the field of M2;
# 8162-6-80 and M2 are kept apart, with some 3,600 objects, so that a false positive in a thousand can be counted:
# make train-lenses REAL="night-fields night-m2" BUNDLE=lenses.safetensors
# make train-lenses SURVEY=rubin BUNDLE=lenses-rubin.safetensors
ifdef REAL
HELD_OUT ?= ["008162-6-0080","002583-2-0136"]
else
HELD_OUT ?= []
endif
train-lenses: env
	$(BIN)/gzscale sky sample $(SAMPLE)-lenses --survey $(SURVEY) --objects 3072 --seed 11 $(SEEING_$(SURVEY))
	$(BIN)/gzscale train lenses --survey $(SURVEY) --images $(SAMPLE)-lenses $(addprefix --images ,$(REAL)) \
	  -o $(BUNDLE) --name $(LENSES_$(SURVEY)) --set 'held_out=$(HELD_OUT)'
ifndef REAL
	$(BIN)/gzscale sky sample $(SAMPLE)-lenses-unseen --survey $(SURVEY) --objects 8192 --seed 12 $(SEEING_$(SURVEY))
	$(BIN)/gzscale evaluate $(BUNDLE) --images $(SAMPLE)-lenses-unseen
endif

# The redshift bundles, from nothing: galaxies are drawn, learnt, and scored beside their colours alone:
# make train-redshifts SURVEY=rubin
train-redshifts: env
	$(BIN)/gzscale sky sample $(SAMPLE) --survey $(SURVEY) --objects $(GALAXIES) --seed 1
	$(BIN)/gzscale train redshifts --survey $(SURVEY) --labels $(SAMPLE)/truth --images $(SAMPLE) \
	  --name $(REDSHIFTS_$(SURVEY)) -o redshifts-$(SURVEY).safetensors
	$(BIN)/gzscale sky sample $(SAMPLE)-unseen --survey $(SURVEY) --objects 20480 --seed 2
	$(BIN)/gzscale evaluate redshifts-$(SURVEY).safetensors --labels $(SAMPLE)-unseen/truth --images $(SAMPLE)-unseen

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(SKY) $(OUT) $(SAMPLE) $(SAMPLE)-unseen $(SAMPLE)-lenses $(SAMPLE)-lenses-unseen bench
