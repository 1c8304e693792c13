#!/usr/bin/env bash
# Instructions a packet of the hot path, counted by valgrind, against those in instructions.txt. Unlike
# time they do not depend on what else the machine does.
set -euo pipefail

usage() {
    cat <<USAGE
Usage: benches/instructions.sh [--bless] [CASE...]

Counts the cases, all if none is named, and compares them with benches/instructions.txt: fails when one
takes more than $TOLERANCE % more, and says so when one takes that much less. --bless writes what was
counted there instead.

  FLOWS=N  flows in the table (1000); with another number nothing is compared

Cases: ${CASES[*]}
USAGE
}

# Those of benches/conntrack that stand for the hot path, and the classifier of benches/policy.
CASES=(tcp udp tcp-sum path-tcp path-udp path-notrack insert path-insert classify)
TOLERANCE=3
FLOWS=${FLOWS:-1000}
# Of a case, in one round.
PACKETS=16384
CLASSIFIED=4096
RULES=1000
BASELINE=benches/instructions.txt

say() { printf 'instructions: %s\n' "$*" >&2; }

# The program of the bench $1, as `cargo bench` builds it.
program() {
    cargo bench --locked --bench "$1" --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# Runs the rest of its arguments and prints the instructions under the functions that $1 means.
collected() {
    local functions=$1
    shift
    valgrind --tool=callgrind --callgrind-out-file="$work/out.$BASHPID" --toggle-collect="$functions" "$@" 2>&1 |
        sed -n 's/.*Collected : *\([0-9]*\).*/\1/p'
}

# Instructions a packet of the case $1: those of the pass that judges, less those of the pass that only
# writes the frames. One round, and the one before it that warms up.
count() {
    local name=$1 function=track all generator
    if [[ $name == classify ]]; then
        all=$(collected 'policy::classify::*::sweep*' "$policy" \
            --rules "$RULES" --packets "$CLASSIFIED" --once)
        printf '%d\n' $((all / CLASSIFIED))
        return
    fi
    local -a run=("$conntrack" --flows "$FLOWS" --cases "$name" --rounds 1 --packets "$PACKETS")
    if [[ $name == *insert* ]]; then function=insert; fi
    all=$(collected "conntrack::*::$function" "${run[@]}")
    generator=$(collected "conntrack::*::generate" "${run[@]}")
    printf '%d\n' $(((all - generator) / (2 * PACKETS)))
}

main() {
    local bless='' name
    local -a cases=()
    while (($#)); do
        case $1 in
            -h | --help)
                usage
                return
                ;;
            --bless) bless=1 ;;
            -*)
                usage >&2
                return 2
                ;;
            *) cases+=("$1") ;;
        esac
        shift
    done
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    if ! command -v valgrind >/dev/null; then
        say "there is no valgrind (Debian: package valgrind)"
        return 1
    fi
    if [[ $bless ]] && { ((${#cases[@]})) || [[ $FLOWS != 1000 ]]; }; then
        say "--bless counts all cases, with 1000 flows"
        return 2
    fi
    if ((!${#cases[@]})); then cases=("${CASES[@]}"); fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    conntrack=$(program conntrack)
    policy=$(program policy)
    # Two at a time: a count does not mind what runs beside it.
    for name in "${cases[@]}"; do
        count "$name" >"$work/$name" &
        while (($(jobs -rp | wc -l) >= 2)); do wait -n; done
    done
    wait
    for name in "${cases[@]}"; do
        if ! [[ $(<"$work/$name") =~ ^[1-9][0-9]*$ ]]; then
            say "$name could not be counted"
            return 1
        fi
    done
    if [[ $bless ]]; then
        {
            printf '# Instructions a packet, by `benches/instructions.sh --bless`: %s flows, %s rules.\n' "$FLOWS" "$RULES"
            printf '# %s\n' "$(rustc --version)"
            for name in "${cases[@]}"; do printf '%s %d\n' "$name" "$(<"$work/$name")"; done
        } >"$BASELINE"
        cat "$BASELINE"
        return
    fi
    compare "${cases[@]}"
}

compare() {
    local name now before failed='' better=''
    local -A baseline=()
    while read -r name before; do
        if [[ $name != \#* ]]; then baseline[$name]=$before; fi
    done <"$BASELINE"
    for name in "$@"; do
        now=$(<"$work/$name")
        before=${baseline[$name]:-}
        if [[ $FLOWS != 1000 || ! $before ]]; then
            printf '%-14s %6d instructions a packet\n' "$name" "$now"
            if [[ $FLOWS == 1000 ]]; then failed+=" $name"; fi
            continue
        fi
        printf '%-14s %6d instructions a packet, baseline %6d: %+.1f %%\n' "$name" "$now" "$before" \
            "$(awk "BEGIN { print ($now - $before) * 100 / $before }")"
        if ((now * 100 > before * (100 + TOLERANCE))); then failed+=" $name"; fi
        if ((now * 100 < before * (100 - TOLERANCE))); then better+=" $name"; fi
    done
    if [[ $better ]]; then
        say "more than $TOLERANCE % fewer than the baseline:$better. benches/instructions.sh --bless keeps that."
    fi
    if [[ $failed ]]; then
        say "more than $TOLERANCE % above the baseline in $BASELINE, or not in it:$failed"
        if ! grep -qF "$(rustc --version)" "$BASELINE"; then
            say "but it was counted with another compiler: $(sed -n 2p "$BASELINE"), here $(rustc --version)"
        fi
        say "if that is what the change is worth: benches/instructions.sh --bless, and commit the file"
        return 1
    fi
}

main "$@"
