#!/usr/bin/env bash
# Reserves hugepages for shardwall, now and at boot.
#
# Writes the kernel's own knobs in /sys, as dpdk-hugepages.py does, so that a box needs no DPDK tools
# for it. Mounts nothing: shardwall asks the kernel for the pages without a file system.
set -euo pipefail

PERSIST=/etc/tmpfiles.d/shardwall-hugepages.conf
STATE=/run/shardwall-hugepages.before
HUGEPAGES=/sys/kernel/mm/hugepages
NODES=/sys/devices/system/node

usage() {
    cat <<USAGE
Usage: ${0##*/} [--size 2M|1G] (--count N | --memory SIZE) [--node N] [--persist]
       ${0##*/} --show
       ${0##*/} --undo

Sets how many hugepages the kernel holds in reserve, and checks what it granted.

  --size 2M|1G    size of a page (default 2M)
  --count N       number of pages
  --memory SIZE   the same as an amount: 512M, 4G; rounded up to whole pages
  --node N        pages of this NUMA node only: the one that the NIC is on (--show lists them)
  --persist       reserve them at every boot too ($PERSIST)
  --force         do not refuse what would leave the system too little memory
  --dry-run       say what would be done, and do nothing
  --show          what is reserved and free now
  --undo          back to the counts from before the first use since boot, and not at boot either

Exit status: 0 done, 1 fewer pages granted than asked for, or refused, 2 usage.
USAGE
}

say() { printf 'hugepages: %s\n' "$*"; }
die() {
    printf 'hugepages: %s\n' "$*" >&2
    exit 1
}
bad_usage() {
    printf 'hugepages: %s (--help says more)\n' "$*" >&2
    exit 2
}

dry_run=0
need_root() {
    if ((!dry_run && EUID != 0)); then die "this needs root"; fi
}

# put VALUE FILE: write a value into a kernel file.
put() {
    if ((dry_run)); then
        say "would write $1 to $2"
    else
        printf '%s\n' "$1" >"$2" || die "the kernel refused $1 in $2"
    fi
}

kib_of_size() {
    case $1 in
        2M | 2m | 2MB) echo 2048 ;;
        1G | 1g | 1GB) echo 1048576 ;;
        *) return 1 ;;
    esac
}

kib_of_memory() {
    [[ $1 =~ ^([0-9]{1,9})([MmGg])[Bb]?$ ]] || return 1
    case ${BASH_REMATCH[2]} in
        M | m) echo $((10#${BASH_REMATCH[1]} * 1024)) ;;
        *) echo $((10#${BASH_REMATCH[1]} * 1024 * 1024)) ;;
    esac
}

human() {
    if (($1 >= 1048576 && $1 % 1048576 == 0)); then echo "$(($1 / 1048576)) GiB"; else echo "$(($1 / 1024)) MiB"; fi
}

size_name() {
    case $1 in
        2048) echo 2M ;;
        1048576) echo 1G ;;
        *) echo "${1}k" ;;
    esac
}

# The folder of a page size, on one node when a node is given.
pool() {
    if [[ -n $2 ]]; then
        echo "$NODES/node$2/hugepages/hugepages-$1kB"
    else
        echo "$HUGEPAGES/hugepages-$1kB"
    fi
}

show() {
    local node dir kib line
    [[ -d $HUGEPAGES ]] || die "this kernel has no hugepages"
    printf '%-5s %-5s %10s %10s %10s\n' NODE SIZE RESERVED FREE MEMORY
    for node in "$NODES"/node[0-9]*; do
        for dir in "$node"/hugepages/hugepages-*kB; do
            [[ -r $dir/nr_hugepages ]] || continue
            kib=${dir##*hugepages-}
            kib=${kib%kB}
            printf '%-5s %-5s %10d %10d %10s\n' "${node##*node}" "$(size_name "$kib")" \
                "$(<"$dir/nr_hugepages")" "$(<"$dir/free_hugepages")" \
                "$(human $(($(<"$dir/nr_hugepages") * kib)))"
        done
    done
    if [[ -r $PERSIST ]]; then
        printf '\nAt boot (%s):\n' "$PERSIST"
        while read -r line; do
            if [[ $line == w* ]]; then printf '  %s\n' "$line"; fi
        done <"$PERSIST"
    fi
}

available_kib() {
    local key value
    while read -r key value _; do
        if [[ $key == MemAvailable: ]]; then echo "$value"; fi
    done </proc/meminfo
}

# Writes the count; where the kernel grants fewer, asks once more after it has compacted memory.
ask_kernel() {
    local knob=$1 want=$2
    put "$want" "$knob"
    if ((dry_run)); then return; fi
    if (($(<"$knob") < want)) && [[ -w /proc/sys/vm/compact_memory ]]; then
        sync
        echo 1 >/proc/sys/vm/compact_memory || true
        put "$want" "$knob"
    fi
}

# Remembers the count of a knob, the first time since boot only.
remember() {
    if ((dry_run)); then return; fi
    if [[ -r $STATE ]] && grep -qF "$1 " "$STATE"; then return; fi
    printf '%s %s\n' "$1" "$(<"$1")" >>"$STATE"
}

persist() {
    local knob=$1 count=$2 kib=$3 node=$4 others=''
    if [[ -r $PERSIST ]]; then
        others=$(grep '^w ' "$PERSIST" | grep -vF "w $knob " || true)
    fi
    if ((dry_run)); then
        say "would write \"w $knob - - - - $count\" to $PERSIST"
    else
        mkdir -p "${PERSIST%/*}"
        {
            echo "# Written by shardwall's hugepages.sh; its --undo removes it."
            if [[ -n $others ]]; then printf '%s\n' "$others"; fi
            printf 'w %s - - - - %s\n' "$knob" "$count"
        } >"$PERSIST"
        say "kept for every boot in $PERSIST"
    fi
    if ((kib == 1048576)) && [[ -z $node ]]; then
        say "1G pages are surest on the kernel's command line, before memory is in pieces:"
        say "    default_hugepagesz=1G hugepagesz=1G hugepages=$count"
    fi
}

reserve() {
    local kib=$1 count=$2 node=$3 keep=$4 force=$5
    local dir knob before after grow available
    dir=$(pool "$kib" "$node")
    knob=$dir/nr_hugepages
    if [[ -n $node && ! -d $NODES/node$node ]]; then die "there is no NUMA node $node (--show lists them)"; fi
    [[ -e $knob ]] || die "this machine has no $(size_name "$kib") pages"
    need_root
    before=$(<"$knob")
    grow=$(((count - before) * kib))
    available=$(available_kib)
    if ((grow * 10 > available * 9 && !force)); then
        die "$count pages are $(human $((count * kib))), and $(human "$available") are available:" \
            "the system would have too little left, or stall (--force does it anyway)"
    fi
    remember "$knob"
    ask_kernel "$knob" "$count"
    if ((keep)); then persist "$knob" "$count" "$kib" "$node"; fi
    if ((dry_run)); then return; fi
    after=$(<"$knob")
    if ((after < count)); then
        say "asked for $count pages of $(size_name "$kib"), granted $after ($(human $((after * kib))))"
        say "memory is short or in pieces: stop what uses it, or reserve them at boot with"
        say "    hugepagesz=$(size_name "$kib") hugepages=$count"
        say "on the kernel's command line, or try --persist and reboot"
        exit 1
    elif ((after > count)); then
        say "asked for $count pages of $(size_name "$kib"), and $after stay: the others are in use"
        exit 1
    fi
    say "$after pages of $(size_name "$kib")${node:+ on node $node} reserved" \
        "($(human $((after * kib)))), $(<"$dir/free_hugepages") of them free; before: $before"
}

undo() {
    local knob count word
    local -a knobs=() counts=()
    if [[ -s $STATE ]]; then
        while read -r knob count; do
            knobs+=("$knob")
            counts+=("$count")
        done <"$STATE"
    elif [[ -r $PERSIST ]]; then
        # Booted since: what was there before is what the kernel would have had without the file.
        while read -r word knob _; do
            if [[ $word == w ]]; then
                knobs+=("$knob")
                counts+=(0)
            fi
        done <"$PERSIST"
    else
        say "nothing to undo"
        return
    fi
    need_root
    local i now
    for ((i = ${#knobs[@]} - 1; i >= 0; i--)); do
        put "${counts[i]}" "${knobs[i]}"
        if ((dry_run)); then continue; fi
        now=$(<"${knobs[i]}")
        say "${knobs[i]}: $now"
        if ((now > counts[i])); then say "    $((now - counts[i])) pages stay: a process uses them"; fi
    done
    if ((dry_run)); then
        if [[ -e $PERSIST ]]; then say "would remove $PERSIST"; fi
        return
    fi
    if [[ -e $PERSIST ]]; then say "removed $PERSIST"; fi
    rm -f "$STATE" "$PERSIST"
}

main() {
    local size=2M count='' memory='' node='' keep=0 force=0 action=''
    if (($# == 0)); then
        usage >&2
        exit 2
    fi
    while (($#)); do
        case $1 in
            --size | --count | --memory | --node)
                if (($# < 2)); then bad_usage "$1 needs a value"; fi
                case $1 in
                    --size) size=$2 ;;
                    --count) count=$2 ;;
                    --memory) memory=$2 ;;
                    --node) node=$2 ;;
                esac
                shift
                ;;
            --persist) keep=1 ;;
            --force) force=1 ;;
            --dry-run) dry_run=1 ;;
            --show) action=show ;;
            --undo) action=undo ;;
            -h | --help)
                usage
                exit 0
                ;;
            *) bad_usage "unknown argument $1" ;;
        esac
        shift
    done
    case $action in
        show)
            show
            return
            ;;
        undo)
            undo
            return
            ;;
    esac
    local kib total
    kib=$(kib_of_size "$size") || bad_usage "--size is 2M or 1G, not $size"
    if [[ -n $node && ! $node =~ ^[0-9]{1,4}$ ]]; then bad_usage "--node is a number, not $node"; fi
    if [[ -n $count && -n $memory ]]; then bad_usage "--count or --memory, not both"; fi
    if [[ -n $memory ]]; then
        total=$(kib_of_memory "$memory") || bad_usage "--memory is like 512M or 4G, not $memory"
        count=$(((total + kib - 1) / kib))
    fi
    [[ $count =~ ^[0-9]{1,9}$ ]] || bad_usage "--count or --memory is needed, as a number"
    reserve "$kib" "$((10#$count))" "$node" "$keep" "$force"
}

main "$@"
