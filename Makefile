# `make test` is the one test command; `make ci` is everything that must be green.

.PHONY: test ci fmt fuzz

test:
	scripts/install-test-deps
	scripts/run-tests

ci:
	.ci/run

fmt:
	cargo fmt --all

# Long; a short run is `scripts/fuzz 8`. Seconds and targets: see fuzz/README.md.
fuzz:
	scripts/fuzz 60
