# make demo   sample data, a small style encoder, a comparison: minutes on two CPU cores, no GPU, no downloads but pip's
# make demo-clip   the same for a small CLIP: training, evaluation, heat maps, search
# make demo-vitp   for a small vision-language model: pretraining, its vision encoder in retrieval, an index to search
# make demo-blip2   a small BLIP-2 gated by the style encoder of make demo, and one by random features: answers of both
# make demo-llava  a small LLaVA: training, descriptions and scores of unseen scenes, evaluation
# make test   the tests, on two cores      make test-all   the slow ones, too: kills and launches of every system
# make lint   ruff, codespell              make types      the type checker
# make bench  the measurements of benchmarks/RESULTS.md
# Each makes .venv and installs what is missing first. REAL_DATA_DIR names a folder of real images, where there is one.
PYTHON_ENV := .venv/bin/python
REAL_DATA_DIR ?= $(wildcard ../shared/data)
export REAL_DATA_DIR
# Threads that wait spinning make two busy processes on two cores many times slower; waiting passively costs nothing.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo demo-clip demo-vitp demo-blip2 demo-llava test test-all lint types bench setup setup-dev

demo: setup
	$(PYTHON_ENV) train.py --demo
	@echo; echo "the same style, two pictures:"
	$(PYTHON_ENV) style_comparator.py data/sample_styles/watercolour/scene_00000_img.png \
		data/sample_styles/watercolour/scene_00001_img.png --weights checkpoints/demo/best.pth
	@echo; echo "two styles, the same picture:"
	$(PYTHON_ENV) style_comparator.py data/sample_styles/watercolour/scene_00000_img.png \
		data/sample_styles/woodcut/scene_00000_img.png --weights checkpoints/demo/best.pth
	@echo; echo "checkpoints are in checkpoints/demo, the curves in checkpoints/demo/training_curves.png;"
	@echo "logs: .venv/bin/tensorboard --logdir=logs"

CLIP_WEIGHTS := model-checkpoint/demo/best_model.pth
demo-clip: setup
	$(PYTHON_ENV) clip/train.py --demo
	$(PYTHON_ENV) clip/evaluate.py --weights $(CLIP_WEIGHTS) --data_dir data/sample_captions --split val
	@echo; echo "the best text of each picture, and the pictures found for the captions of two that were not trained on:"
	$(PYTHON_ENV) clip/inference.py --data_root data/sample_captions/images --model $(CLIP_WEIGHTS) \
		--metadata data/sample_captions/data.json --max_heatmaps 0 --query \
		"two large turquoise moons below two large orange houses, in front of a dotted wall" \
		"two large blue umbrellas left of two small brown moons, on a meadow"
	@echo; echo "curves and metrics are in results/clip_demo and results/evaluation, pictures in heatmaps/"

VITP_DEMO := data/vitp_demo/retrieval
demo-vitp: setup
	$(PYTHON_ENV) vitp/train.py --demo
	$(PYTHON_ENV) retrieval/compare_encoders.py --query_dir $(VITP_DEMO)/query --gallery_dir $(VITP_DEMO)/gallery \
		--output_dir results/vitp_demo --encoders untrained=data/vitp_demo/untrained trained=checkpoints/vitp_demo
	$(PYTHON_ENV) vitp/extract_vit.py checkpoints/vitp_demo checkpoints/vitp_demo/vit/trained.pth
	$(PYTHON_ENV) vitp/inference.py data/vitp_demo/test/gallery/fish/00000.png "Describe this picture." \
		--model_name_or_path checkpoints/vitp_demo
	$(PYTHON_ENV) retrieval/build_index.py --index_dir features/demo_index --image_dir $(VITP_DEMO)/gallery \
		--vit_checkpoint checkpoints/vitp_demo/vit/trained.pth
	$(PYTHON_ENV) retrieval/search.py --index_dir features/demo_index --sheet results/vitp_demo.png \
		--image $$(ls $(VITP_DEMO)/query/*/00001.png | head -n 4)
	@echo; echo "the pictures found are in results/vitp_demo.png, all answers in checkpoints/vitp_demo/answers.json"

STYLE_EXPERT := checkpoints/demo/best.pth
$(STYLE_EXPERT): | setup
	$(PYTHON_ENV) train.py --demo

# Twice the same training: beside an EfficientNet of random weights, and beside the style encoder of `make demo`.
BLIP2_DEMO := checkpoints/blip2_gated_demo
BLIP2_TEST := $(PYTHON_ENV) blip2_gated/evaluate.py --split test
demo-blip2: setup $(STYLE_EXPERT)
	$(PYTHON_ENV) blip2_gated/train.py --demo --training.checkpoint_dir $(BLIP2_DEMO)_random
	$(PYTHON_ENV) blip2_gated/train.py --demo --model.efficientnet.weights $(STYLE_EXPERT)
	$(BLIP2_TEST) --checkpoint $(BLIP2_DEMO)_random/best.pt --output_dir results/blip2_gated_demo_random
	$(BLIP2_TEST) --checkpoint $(BLIP2_DEMO)/best.pt --output_dir results/blip2_gated_demo
	$(PYTHON_ENV) blip2_gated/inference.py data/sample_vqa/images/scene_00007.png \
		"Which drawing technique was used here?" "How many trees are there?" --checkpoint $(BLIP2_DEMO)/best.pt
	@echo; echo "pictures that neither the style encoder nor BLIP-2 was trained on:"
	$(PYTHON_ENV) blip2_gated/compare.py random=results/blip2_gated_demo_random expert=results/blip2_gated_demo --show 8

demo-llava: setup
	$(PYTHON_ENV) llava/train.py --demo
	$(PYTHON_ENV) llava/inference.py --demo
	$(PYTHON_ENV) llava/evaluate.py --demo
	@echo; echo "the report is results/llava_demo/report.md, its worst answers first in results/llava_demo/worst.png"

WORKERS := --numprocesses 2 --dist loadfile
test: setup-dev
	$(PYTHON_ENV) -m pytest $(WORKERS) -m "not slow"

test-all: setup-dev
	$(PYTHON_ENV) -m pytest $(WORKERS)

lint: setup-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	git ls-files -z | xargs -0 .venv/bin/codespell

types: setup-dev
	.venv/bin/mypy

bench: setup
	$(PYTHON_ENV) benchmarks/style_speed.py
	$(PYTHON_ENV) benchmarks/freed_memory.py
	$(PYTHON_ENV) benchmarks/clip_speed.py
	$(PYTHON_ENV) benchmarks/heatmaps.py
	$(PYTHON_ENV) benchmarks/blip2_speed.py
	$(PYTHON_ENV) benchmarks/llava_speed.py
	$(PYTHON_ENV) benchmarks/vitp_speed.py masking
	for part in features expansion search; do $(PYTHON_ENV) benchmarks/retrieval_speed.py $$part || exit 1; done
	$(PYTHON_ENV) benchmarks/measures_speed.py
	$(PYTHON_ENV) benchmarks/limits.py

setup:
	@./setup.sh
setup-dev:
	@./setup.sh dev
