# make demo   everything on a simulated cohort: simulate, preprocess, pretrain, finetune, report
# make test   the test suite        make lint   style and types
# make bench  the benchmarks        make wheel  build a wheel, run it in an empty environment
# make real   the table of the README, from DATA (eegmat/, eegmmidb/, ssvep_exo/)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench real wheel clean

$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.core
	$(BIN)/neurofm demo folder=demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile  # no more threads than cores

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell neurofm preprocessing tokenizers pretrain finetune configs benchmarks docs *.md  # tests misspell on purpose

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,bench]'
	$(BIN)/pip install -q -c constraints.txt --no-deps litdata
	touch $@

bench: $(VENV)/.bench
	for script in $(filter-out benchmarks/real_data.py,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

real: $(VENV)/.core
	$(BIN)/python benchmarks/real_data.py --data $(or $(DATA),$(NEUROFM_TEST_DATA),data)

wheel: $(VENV)/.dev
	rm -rf build dist $(VENV)-wheel
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install -q -c constraints.txt dist/*.whl
	cd / && $(abspath $(VENV))-wheel/bin/python $(CURDIR)/tests/wheel_smoke.py
	rm -rf build $(VENV)-wheel

clean:
	rm -rf $(VENV) $(VENV)-wheel build dist demo *.egg-info
