# Every target sets up what it needs in .venv; nothing here is needed by users who have an environment.
PYTHON ?= python3
VENV ?= .venv
# One build of torch for everybody; on a CUDA machine set TORCH to the build you use.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
SAMPLES := chest_ct hepatocellular_table lung_ct_rtstruct chest_xray_reports chest_xray_jpeg chest_xray_dicom

.PHONY: train test slow demo lint bench clean

train: $(VENV)/.base
	. $(BIN)/activate && python -m monai.bundle run training --config_file bundles/react_kd/configs/train.json

test: $(VENV)/.test
	for name in $(SAMPLES); do $(BIN)/medbundles samples fetch $$name || exit 1; done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# The demo page in headless Chromium, which has to be on the path or named by CHROMIUM.
demo: $(VENV)/.demo
	$(BIN)/medbundles samples fetch chest_ct
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/bundles/rect_vlm/test_rect_demo_browser.py -rs

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.run

$(VENV)/.base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.lint: $(VENV)/.base
	$(BIN)/pip install --quiet --editable ".[lint]"
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.demo: $(VENV)/.test
	$(BIN)/pip install --quiet --editable ".[demo]" "playwright>=1.50"
	touch $@

$(VENV)/.bench: $(VENV)/.base
	$(BIN)/pip install --quiet --editable ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
