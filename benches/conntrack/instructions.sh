#!/bin/sh
# Instructions a packet of the cases of `cargo bench --bench conntrack`, counted by valgrind: those of
# the pass that tracks, less those of the pass that only writes the frames. Unlike time they do not
# depend on what else the machine does.
#
#   benches/conntrack/instructions.sh [FLOWS [CASE...]]
set -eu
flows=${1:-1000}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- tcp tcp-ts tcp-sum udp path-tcp path-notrack path-udp insert tcp-expecting insert-expecting
packets=65536
bench=$(cargo bench --bench conntrack --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"name":"conntrack".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# One round and the one before it that warms up: twice the packets.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$out" --toggle-collect="conntrack::cases::*::$2" "$bench" \
        --flows "$flows" --cases "$1" --rounds 1 --packets "$packets" 2>&1 |
        sed -n 's/.*Collected : *\([0-9]*\).*/\1/p'
}
for case in "$@"; do
    work=track
    case $case in insert*) work=insert ;; esac
    all=$(count "$case" "$work")
    generator=$(count "$case" generate)
    echo "$case: $(((all - generator) / (2 * packets))) instructions a packet"
done
