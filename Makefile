# make fit: the main job, on a simulated cell. make test: the tests. Each makes .venv where it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin
ifneq ($(wildcard ../shared/data),)
export JAXLIF_DATA ?= $(abspath ../shared/data)
endif
export MPLBACKEND ?= Agg

.PHONY: fit test lint types notebooks experiments clean

fit: .venv/stamp
	@mkdir -p out
	@$(BIN)/jaxlif simulate --model hodgkin-huxley --out out/cell.npz
	@$(BIN)/jaxlif fit out/cell.npz --out out

test: .venv/stamp
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/stamp
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .

types: .venv/stamp
	@$(BIN)/mypy --no-error-summary

notebooks: .venv/stamp
	@env -u MPLBACKEND $(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

experiments: .venv/stamp
	@for file in synthetic_recovery fsi_steps l5_plain_lif digits; do $(BIN)/python experiments/$$file.py || exit 1; done
	@$(BIN)/python experiments/tables.py

.venv/stamp: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .cache out dist
