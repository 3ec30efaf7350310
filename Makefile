.DEFAULT_GOAL := help
.PHONY: help demo gstreamer test trixie swiftshader packages packages-test arm64-test \
	lint shaders clean
MAKEFLAGS += --no-print-directory

PYTHON_FOLDERS := runtime exporter training benchmarks tools tests

help:
	@echo "make demo     set up, and upscale the pictures of examples/ into demo/"
	@echo "make gstreamer  set up the GStreamer element upfrostscale"
	@echo "make test     set up, lint, check types, run every test"
	@echo "make trixie   the runtime's and the element's tests on Debian 13, in a chroot"
	@echo "make swiftshader  the kernels' tests in fp32 on a second Vulkan driver"
	@echo "make packages  Debian packages and wheels, for amd64 and arm64, into dist/"
	@echo "make packages-test  install, use and remove them on bare Debian 12 and 13"
	@echo "make arm64-test  those for arm64 and their tests, in an emulator"
	@echo "make lint     ruff and mypy alone"
	@echo "make shaders  compile shaders/ to runtime/upfrost/gpu/spirv/"
	@echo "make clean    remove what these made, .venv and demo/ included"

demo:
	@tools/setup.sh run
	@.venv/bin/python tools/demo.py

gstreamer:
	@tools/gstreamer.sh

test: lint
	@.venv/bin/python -m pytest --numprocesses auto --dist worksteal

# TESTS=tests/runtime/gpu make trixie: others
trixie:
	@tools/trixie.sh $(TESTS)

# Debian's chromium brings it. It has no half precision.
SWIFTSHADER := /usr/lib/chromium/vk_swiftshader_icd.json
swiftshader:
	@test -e $(SWIFTSHADER) || \
		{ echo "needs SwiftShader, which chromium has: apt-get install chromium"; exit 1; }
	@tools/setup.sh test
	@VK_DRIVER_FILES=$(SWIFTSHADER) VK_ICD_FILENAMES=$(SWIFTSHADER) \
		.venv/bin/python -m pytest --numprocesses auto -k fp32 tests/runtime/gpu

packages:
	@tools/packages.sh

packages-test:
	@tools/packages-test.sh

# TESTS=tests/runtime/network make arm64-test: others
arm64-test:
	@tools/arm64-test.sh $(TESTS)

lint:
	@tools/setup.sh test
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet || \
		{ echo "some files are not formatted: .venv/bin/ruff format"; exit 1; }
	@.venv/bin/mypy

shaders:
	@tools/setup.sh test
	@.venv/bin/python shaders/build.py

clean:
	rm -rf .venv .venv-gstreamer demo dist setup.log .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(wildcard $(PYTHON_FOLDERS)) -name __pycache__ -prune -exec rm -rf {} +
