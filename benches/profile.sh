#!/usr/bin/env bash
# Where the instructions of a packet go: callgrind's counts of one case, by the source file and by the line
# that they were compiled from, whatever was inlined where.
set -euo pipefail

usage() {
    cat <<USAGE
Usage: benches/profile.sh [CASE] [LINES]

Prints instructions a packet of CASE of benches/conntrack (tcp), by source file, and of the LINES (25)
lines that take most. What writes the frames (benches/conntrack/frames.rs) is in it.

  FLOWS=N  flows in the table (1000)
USAGE
}

case ${1:-} in -h | --help) usage && exit ;; esac
name=${1:-tcp} lines=${2:-25} flows=${FLOWS:-1000} packets=16384
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

program=$(cargo bench --locked --bench conntrack --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"name":"conntrack".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
function=track
if [[ $name == *insert* ]]; then function=insert; fi
valgrind --tool=callgrind --dump-line=yes --callgrind-out-file="$work/out" \
    --toggle-collect="conntrack::*::$function" \
    "$program" --flows "$flows" --cases "$name" --rounds 1 --packets "$packets" >/dev/null 2>&1

# One pass to warm up, and one that counts. Of the file only: who called whom is not asked.
awk -v passes=$((2 * packets)) -v root="$PWD/" '
    function file_of(text,    id) {
        match(text, /\([0-9]+\)/)
        id = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH + 1)
        if (text != "") {
            sub("^" root, "", text)
            sub(/^.*\/library\//, "library/", text)
            sub(/^.*\/registry\/src\/[^\/]*\//, "", text)
            names[id] = text
        }
        return names[id]
    }
    /^(fl|fi|fe)=/ { file = file_of($0); next }
    /^cf[il]=/ { file_of($0); next }
    /^calls=/ { skip = 1; next }
    /^[0-9+*-]/ {
        line = $1 == "*" ? line : $1 ~ /^[+-]/ ? line + $1 : $1
        if (skip) { skip = 0; next }
        files[file] += $2
        places[file ":" line] += $2
    }
    END {
        for (file in files) printf "file %.1f %s\n", files[file] / passes, file
        for (place in places) printf "line %.1f %s\n", places[place] / passes, place
    }
' "$work/out" | sort -k1,1 -k2,2gr >"$work/table"

printf '%s, %s flows: instructions a packet\n\nby file\n' "$name" "$flows"
awk '$1 == "file" && $2 >= 1 { printf "%8.1f  %s\n", $2, $3 }' "$work/table"
printf '\nby line\n'
awk '$1 == "line"' "$work/table" | head -n "$lines" | while read -r _ count place; do
    text=$(sed -n "${place##*:}p" "${place%:*}" 2>/dev/null | sed 's/^ *//' || true)
    printf '%8.1f  %s  %s\n' "$count" "$place" "$text"
done
