#!/usr/bin/env bash
# Everything that must hold before a change goes in; `make test` runs it after setup.sh.
set -euo pipefail

usage() {
    cat <<USAGE
Usage: deploy/checks.sh [STEP...]

Runs every step in order, or those named, and stops at the first that fails. Each prints its name
and the seconds that it took.

Steps: ${STEPS[*]}
Only when named: ${MORE[*]}
USAGE
}

# What takes seconds comes first. The steps of one feature set follow each other; both sets stay in
# the same target folder, so that a second run builds only what changed.
STEPS=(scripts format units prometheus grafana deny clippy test clippy-nodpdk test-nodpdk journal doc benches instructions loom fuzz)
# What takes longer than a change can wait for.
MORE=(sanitizers)

skip() { printf 'skipped: %s\n' "$*"; }

step_scripts() {
    local file
    for file in deploy/*.sh deploy/image/*.sh benches/*.sh .ci/run; do
        bash -n "$file"
        [[ -x $file ]] || {
            printf '%s is not executable\n' "$file"
            return 1
        }
    done
}

step_format() { cargo fmt --all --check; }

# The unit is checked with a binary that exists: the real one is not installed here.
step_units() {
    if ! command -v systemd-analyze >/dev/null; then
        skip "there is no systemd-analyze"
        return
    fi
    sed 's#=/usr/bin/shardwall#=/bin/true#' deploy/shardwall.service >"$work/shardwall.service"
    local said
    # It exits 0 for keys that it does not know, so what it says of our unit counts too.
    said=$(systemd-analyze verify --man=no "$work/shardwall.service" 2>&1) || {
        printf '%s\n' "$said"
        return 1
    }
    if grep -F shardwall.service <<<"$said"; then return 1; fi
}

step_prometheus() {
    local promtool
    promtool=$(command -v promtool || echo "${CARGO_TARGET_DIR:-target}/tools/promtool")
    "$promtool" check config deploy/prometheus/prometheus.yml
    "$promtool" test rules deploy/prometheus/alerts_test.yml
    # The dashboards' queries, as rules, with Grafana's variables filled in.
    python3 - deploy/grafana/*.json >"$work/dashboards.yml" <<'PYTHON'
import json
import sys

rules = []
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        dashboard = json.load(file)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$__interval", "1m")
            rules.append({"record": f"dashboard:{len(rules)}", "expr": expr})
json.dump({"groups": [{"name": "dashboards", "rules": rules}]}, sys.stdout)
PYTHON
    "$promtool" check rules "$work/dashboards.yml"
}

# The dashboards are those that the generator writes, and of the form that Grafana's types have.
step_grafana() {
    deploy/grafana/generate.py --check
    local modules=${CARGO_TARGET_DIR:-target}/tools/grafana/node_modules
    if [[ ! -x $modules/.bin/tsc ]]; then
        skip "there is no npm: the dashboards are not checked against Grafana's schema"
        return
    fi
    deploy/grafana/check.py "$modules"
}

step_deny() {
    cargo deny --log-level error check licenses bans sources
    # The list of known faults comes over the network; a machine without one checks the rest.
    if cargo deny --log-level off fetch db >/dev/null 2>&1; then
        cargo deny --log-level error check advisories
    else
        skip "the advisory database cannot be fetched: advisories are not checked"
    fi
}

step_clippy() { cargo clippy --locked --workspace --all-targets -- -D warnings; }
step_test() { cargo test --locked --workspace; }
step_clippy-nodpdk() { cargo clippy --locked --no-default-features --all-targets -- -D warnings; }
step_test-nodpdk() { cargo test --locked --no-default-features; }

# The journal's socket has one path only: the test stands in for it in a mount namespace of its own,
# where /run is empty. Nobody but root needs a user namespace for that.
step_journal() {
    local -a apart=(unshare --mount)
    if ((EUID)); then apart+=(--map-root-user); fi
    if ! "${apart[@]}" mount -t tmpfs tmpfs /run 2>/dev/null; then
        skip "mount namespaces are not allowed here: the log to the journal is not tested"
        return
    fi
    local test=cli::logging::tests::the_journal_gets_fields
    "${apart[@]}" sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' journal \
        cargo test --locked --no-default-features --lib -- --ignored --exact "$test" | tee "$work/journal.log"
    # A test by another name would pass unseen.
    grep -q "^test $test ... ok" "$work/journal.log"
}

step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps; }

step_benches() { cargo bench --locked --bench '*' --no-run; }

# The hot path takes no more instructions a packet than it did; the programs are those of `benches`.
step_instructions() { benches/instructions.sh; }

# What is shared between threads without locks, in every interleaving.
step_loom() {
    RUSTFLAGS="--cfg shardwall_loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
        cargo test --locked --no-default-features --lib -- \
        base::board base::counter base::meters base::rcu base::tally \
        conntrack::limit policy::limit dataplane::halt
}

# The unit tests of the workers and of what they share, with the compiler's checks of
# every memory access: races, and accesses out of bounds or after the end. The standard library is
# built the same way, or the thread sanitizer would not see what its locks and channels order.
step_sanitizers() {
    local sysroot sanitizer
    sysroot=$(rustc +nightly --print sysroot 2>/dev/null) || sysroot=
    if [[ ! -e $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]]; then
        skip "sanitizers need a nightly toolchain with rust-src"
        return
    fi
    # Few cases of each property, and no million flows: they are for other checks, and slow here. One
    # test after the other, as the sanitizer does not see rustix unmap what the next maps.
    for sanitizer in thread address; do
        printf '%s sanitizer\n' "$sanitizer"
        RUSTFLAGS="-Zsanitizer=$sanitizer" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitize/$sanitizer" \
            CARGO_PROFILE_DEV_DEBUG=line-tables-only PROPTEST_CASES=16 TSAN_OPTIONS=halt_on_error=1 \
            cargo +nightly test --locked --no-default-features --lib -Zbuild-std \
            --target x86_64-unknown-linux-gnu -- --test-threads=1 \
            base:: dataplane:: conntrack::limit conntrack::event policy::limit \
            --skip a_loop_looks_at_few_entries_however_many_there_are
    done
}

# A short run of each fuzz target, from whatever corpus is there.
step_fuzz() {
    if ! rustup toolchain list 2>/dev/null | grep -q '^nightly' || ! cargo fuzz --version >/dev/null 2>&1; then
        skip "fuzzing needs a nightly toolchain and cargo-fuzz"
        return
    fi
    local target seconds
    for target in $(cargo +nightly fuzz list --fuzz-dir tests/fuzz); do
        seconds=20
        [[ $target != helper_* ]] || seconds=10
        CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/fuzz" cargo +nightly fuzz run \
            --fuzz-dir tests/fuzz "$target" -- -max_total_time="${FUZZ_SECONDS:-$seconds}" -max_len=4096 \
            2>"$work/fuzz.log" || {
            tail -n 60 "$work/fuzz.log"
            return 1
        }
        tail -n 1 "$work/fuzz.log"
    done
}

# Each step runs in a shell of its own: with `set -e`, and not as a condition, which would undo it.
run_step() {
    local name=$1 start=$SECONDS status
    printf '\n==> %s\n' "$name"
    set +e
    (
        set -e
        "step_$name"
    )
    status=$?
    set -e
    if ((status)); then
        printf '==> %s FAILED after %d s\n' "$name" $((SECONDS - start)) >&2
        exit "$status"
    fi
    printf '==> %s: %d s\n' "$name" $((SECONDS - start))
}

main() {
    local name
    local -a chosen=("${STEPS[@]}")
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        usage
        return
    fi
    if (($#)); then chosen=("$@"); fi
    for name in "${chosen[@]}"; do
        if ! declare -F "step_$name" >/dev/null; then
            printf 'checks: there is no step %s\n' "$name" >&2
            usage >&2
            return 2
        fi
    done
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for name in "${chosen[@]}"; do run_step "$name"; done
    printf '\nall passed in %d s\n' "$SECONDS"
}

main "$@"
