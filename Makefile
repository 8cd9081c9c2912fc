# `make test` is the one test command; `make ci` is everything that must be green.

.PHONY: test ci fmt fuzz loadtest

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

# The standard set of load scenarios, in under 15 minutes once the build is there: a table with shares
# of the machine's ceilings, target/loadtest/record-*.json and target/loadtest/report.html. Other sets:
# docs/LOADTEST.md.
loadtest:
	cargo build --release --workspace --locked
	$${CARGO_TARGET_DIR:-target}/release/loadtest set --backlog-scale 0.1 \
		--gateway $${CARGO_TARGET_DIR:-target}/release/posthaste --out target/loadtest $(LOADTEST_ARGS)
