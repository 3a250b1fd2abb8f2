# `make demo`, `make test` and `make test-all` need only Python 3.10 or newer: they make their own virtual environment
# and install into it, once.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-all lint tables docs

$(INSTALLED): setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; call make with PYTHON=python3.12, say.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# Trains on scikit-learn's scans of handwritten digits; a run that was cut short is carried on.
demo: $(INSTALLED)
	$(BIN)/pit-keras train --recipe=cutmix --model=pit_ti --dataset=digits --image_size=32 \
	    --batch_size=64 --epochs=40 --output_dir=$(RUN) \
	    --config.model.patch_size=4 --config.model.stride=4 --config.model.head_dim=16 \
	    --config.model.depths='(2, 2, 2)' \
	    --config.data.flip=false --config.data.crop_scale='(0.6, 1.0)' \
	    --config.data.crop_aspect='(0.8, 1.25)' --config.data.eval_crop=1.0 \
	    --config.optimizer.learning_rate=1.6e-2 --config.optimizer.warmup_epochs=3
	$(BIN)/pit-keras evaluate --model=$(RUN)
	$(BIN)/pit-keras export --model=$(RUN) --overwrite
	$(BIN)/python train/sample_images.py --dataset=digits --count=24 --output_dir=$(RUN)/digits
	$(BIN)/pit-keras predict --model=$(RUN) --top=3 --output=$(RUN)/predictions.png $(RUN)/digits
	$(BIN)/pit-keras predict --model=$(RUN)/export/model.tflite --top=1 $(RUN)/digits
	@echo
	@$(BIN)/python -c 'import json; r = json.load(open("$(RUN)/results.json")); print("Top-1 {top1:.4f}, top-5 {top5:.4f} on {images} held-out digits.".format(**r))'
	@echo "Everything lies in $(RUN):"
	@echo "  predictions.png   held-out digits with their predictions"
	@echo "  history.png       training curves; history.csv and logs/ hold the numbers"
	@echo "  results.json      accuracy on the held-out digits"
	@echo "  model.keras       the model: keras.models.load_model(...) after import pit_keras"
	@echo "  export/           SavedModel, TFLite and ONNX files; its README.md is their model card"
	@echo "Next, your own images, PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg:"
	@echo "  $(BIN)/pit-keras train --recipe=cutmix --model=pit_ti --dataset=folder:PATH \\"
	@echo "      --batch_size=32 --epochs=50 --output_dir=runs/mine"
	@echo "or ImageNet, prepared by TFDS in DIR:"
	@echo "  $(BIN)/pit-keras train --recipe=cutmix --model=pit_s --dataset=imagenet2012 \\"
	@echo "      --data_dir=DIR --output_dir=runs/pit_s_cutmix"

# A process more than cores, since some tests wait; files in the order of tests/conftest.py.
IN_PARALLEL := --numprocesses=3 --dist=loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow"

# More of the same too: all variants, more kills, larger images.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest $(IN_PARALLEL)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Writes results/models.csv and the tables of README and docs from the other files of results/.
tables: $(INSTALLED)
	$(BIN)/python benchmarks/make_tables.py

# Builds the documentation; open build/docs/index.html.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs
	@echo "The documentation is in build/docs/index.html."
