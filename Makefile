.PHONY: demo test check clean

demo:
	@scripts/install
	@.venv/bin/budwood demo

test:
	@scripts/install
	@scripts/test

check:
	@scripts/install
	@scripts/check

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache dist
