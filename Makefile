# `make test` is the one test command; `make ci` is everything that must be green.

.PHONY: test ci fmt

test:
	scripts/install-test-deps
	scripts/run-tests

ci:
	.ci/run

fmt:
	cargo fmt --all
