# `make test` is the one test command; `make ci` is everything that must be green.

.PHONY: test ci fmt fuzz

test:
	scripts/install-test-deps
	scripts/run-tests

ci:
	.ci/run

fmt:
	cargo fmt --all

# Long; CI runs 8 s a target. Seconds and targets: see fuzz/README.md.
fuzz:
	scripts/fuzz 60
