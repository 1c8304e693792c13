#!/usr/bin/env bash
# Installs the Debian package in a clean Debian 12 tree, boots the tree, uses the appliance as an operator
# does, and removes it.
set -euo pipefail

SUITE=bookworm
MIRROR=${MIRROR:-http://deb.debian.org/debian}
# What the tree has beside Debian's minimum: an init, and what carries the traffic.
INCLUDE=systemd,systemd-sysv,dbus,udev,logrotate,iproute2,iputils-ping,procps,ca-certificates

usage() {
    cat <<USAGE
Usage: ${0##*/} [PACKAGE]

Without PACKAGE the newest in target/debian is tested. Needs root, debootstrap, systemd-container, and
Debian's mirror (MIRROR=URL names another). A tree that debootstrap made is kept in TREE, if that is set, and
taken from there the next time.
USAGE
}

say() { printf 'test-deb: %s\n' "$*"; }
die() {
    printf 'test-deb: %s\n' "$*" >&2
    exit 1
}

# What the tree has: files with their modes and owners, and users. Without what every apt-get and every boot
# changes.
snapshot() {
    local tree=$1
    (
        cd "$tree"
        find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./var/cache \
            -o -path ./var/lib/apt -o -path ./var/lib/dpkg -o -path ./var/log/apt -o -path ./var/log/journal \
            -o -path ./var/lib/systemd -o -path ./var/tmp -o -path ./root \) -prune -o -printf '%p %M %u:%g\n' |
            grep -vE '^\./(etc/(machine-id|\.pwd\.lock|hostname|(passwd|group|shadow|gshadow)-)|var/log/(dpkg.log|alternatives.log|wtmp|btmp|lastlog)|run/[^s]|run/systemd|etc/(ld.so.cache|mtab)) ' |
            sort
        cut -d: -f1,3 etc/passwd etc/group
    )
}

in_tree() { DEBIAN_FRONTEND=noninteractive chroot "$tree" "$@"; }

# What runs in the booted tree, as its last unit; each line of its report is a thing that was seen.
inside() {
    cat <<'INSIDE'
#!/bin/bash
# The unit that runs this has no terminal; what it says goes to a file outside.
exec >/report 2>&1
set -uo pipefail
pass() { echo "ok   $*"; }
fail() {
    echo "FAIL $*"
    cat /tmp/said
    journalctl -u shardwall --no-pager -n 20
    shardwall stats
    shardwall drops
    touch /tmp/failed
}
# What the rest depends on.
need() {
    check "$@"
    if [ -e /tmp/failed ]; then exit 1; fi
}
check() {
    local what=$1
    shift
    if "$@" >/tmp/said 2>&1; then pass "$what"; else fail "$what"; fi
}
journal() {
    journalctl --sync
    journalctl -u shardwall --no-pager
}
# Whether another process than $old runs the appliance, and is ready.
anew() {
    local pid
    pid=$(main_pid)
    [ "$pid" != 0 ] && [ "$pid" != "$old" ] && [ "$(systemctl is-active shardwall)" = active ]
}
# Waits until a command succeeds, so many tenths of a second at most.
within() {
    local tenths=$1 _
    shift
    for _ in $(seq "$tenths"); do
        if "$@"; then return; fi
        sleep 0.1
    done
    return 1
}
main_pid() { systemctl show -P MainPID shardwall; }

cat >/etc/shardwall/policy.yaml <<'POLICY'
version: 1
ports: { lan: { device: "net_tap0,iface=sw-lan" }, wan: { device: "net_tap1,iface=sw-wan" } }
bridge: [[lan, wan]]
system: { workers: 1, idle: sleep, log: /var/log/shardwall/shardwall.log }
chains:
  forward:
    policy: drop
    rules:
      - { name: known, ct: [established, related], action: accept }
      - { name: ping, proto: icmp, ct: new, log: true, action: accept }
POLICY
wire() {
    ip netns del lan 2>/dev/null; ip netns del wan 2>/dev/null
    for side in lan wan; do
        ip netns add $side
        ip link set sw-$side netns $side
        ip -n $side link set sw-$side up
    done
    ip -n lan addr add 10.77.0.1/24 dev sw-lan
    ip -n wan addr add 10.77.0.2/24 dev sw-wan
}
pings() { ip netns exec lan ping -c 2 -i 0.2 -w 20 10.77.0.2; }

check "the unit is loaded and off" test "$(systemctl is-enabled shardwall)" = disabled
need "systemctl start" systemctl start shardwall
check "it runs as shardwall" test "$(stat -c %U /proc/"$(main_pid)")" = shardwall
check "no capabilities but two" test "$(sed -n 's/^CapEff:\t//p' /proc/"$(main_pid)"/status)" = 0000000000003000
wire
check "traffic passes" pings
check "status text" grep -q "1 worker, .* flows, policy generation 1" <(systemctl show -P StatusText shardwall)
check "conntrack lists the flow" grep -q "src=10.77.0.1 dst=10.77.0.2" <(shardwall conntrack -L)
huge_mb=$(awk '/^HugePages_Total/ { print $2 * 2 }' /proc/meminfo)
if [ "$huge_mb" -ge 256 ]; then
    check "it runs on hugepages" grep -q '"memory":"hugepages"' /var/log/shardwall/shardwall.log
else
    echo "not tried: this box gives no hugepages"
fi
check "the log is a file" within 50 grep -q forward/ping /var/log/shardwall/shardwall.log
check "another user is refused" bash -c '! setpriv --reuid 65534 --clear-groups shardwall stats'
check "doctor finds no failure" shardwall doctor -c /etc/shardwall/policy.yaml
cp /etc/shardwall/policy.yaml /tmp/good
sed -i 's/name: ping/name: ping2/' /etc/shardwall/policy.yaml
check "systemctl reload" systemctl reload shardwall
check "the new policy is in force" grep -qw ping2 <(shardwall rules)
sed -i 's/ct: new/ct: knew/' /etc/shardwall/policy.yaml
check "a policy with a mistake fails the reload" bash -c '! systemctl reload shardwall'
check "the journal says why" grep -q knew <(journal)
check "the one before stays" grep -qw ping2 <(shardwall rules)
check "it is active all the same" systemctl is-active shardwall
check "traffic passes still" pings
cp /tmp/good /etc/shardwall/policy.yaml
mv /var/log/shardwall/shardwall.log /var/log/shardwall/shardwall.log.1
check "logrotate's file is valid" logrotate --debug /etc/logrotate.d/shardwall
systemctl kill -s HUP --kill-whom=main shardwall
check "SIGHUP opens the log anew" within 50 test -s /var/log/shardwall/shardwall.log

old=$(main_pid)
kill -9 "$old"
check "kill -9: systemd starts it anew" within 300 anew
wire
check "kill -9: traffic passes" pings
old=$(main_pid)
# All of it stands still, as if a worker never came back: nobody feeds the watchdog.
systemctl kill -s STOP --kill-whom=main shardwall
check "stalled: it is started anew" within 600 anew
check "stalled: the watchdog did that" grep -q "Watchdog timeout" <(journal)
wire
check "stalled: traffic passes" pings
systemd-analyze security --no-pager shardwall.service | tail -n 1
check "systemctl stop" systemctl stop shardwall
check "it ended by itself" test "$(systemctl show -P Result shardwall)" = success
check "/run is empty" test ! -e /run/shardwall
check "pages: man finds them" test -e /usr/share/man/man1/shardwall.1.gz -a -e /usr/share/man/man5/shardwall-policy.5.gz
check "hugepages: dry run" shardwall-hugepages --count 0 --dry-run
check "nic-bind: status" shardwall-nic-bind --status
ip netns del lan; ip netns del wan
systemctl start shardwall
check "apt-get remove while it runs" env DEBIAN_FRONTEND=noninteractive apt-get -q -y remove shardwall
check "removed: nothing runs" test -z "$(pgrep -x shardwall)"
check "removed: the policy is there still" test -e /etc/shardwall/policy.yaml
check "apt-get purge" env DEBIAN_FRONTEND=noninteractive apt-get -q -y purge shardwall
check "purged: no user" bash -c '! getent passwd shardwall'
check "purged: nothing in /run, /var and /etc" bash -c '! find /run /var /etc -name "*shardwall*" -not -path "/run/systemd/transient/*" -not -path "/var/lib/apt/*" -not -path "/var/cache/*" -not -path "/var/tmp/*" | grep .'
echo done
INSIDE
}

main() {
    local deb=${1:-} tree base work before start=$SECONDS
    if [[ $deb == -h || $deb == --help ]]; then
        usage
        return
    fi
    if ((EUID)); then die "this needs root"; fi
    local program
    for program in debootstrap systemd-nspawn; do
        command -v $program >/dev/null || die "$program is missing: apt-get install debootstrap systemd-container"
    done
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    if [[ -z $deb ]]; then deb=$(find target/debian -name 'shardwall_*.deb' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2); fi
    [[ -f $deb ]] || die "there is no package: make deb"
    work=$(mktemp -d /var/tmp/shardwall-deb.XXXXXX)
    # Hugepages for the length of the test, if the box has none and gives some: the unit must do with them.
    before=$(</proc/sys/vm/nr_hugepages)
    # shellcheck disable=SC2064
    trap "echo $before >/proc/sys/vm/nr_hugepages || true; rm -rf --one-file-system '$work'" EXIT
    if ((before == 0)); then echo 256 >/proc/sys/vm/nr_hugepages || true; fi
    tree=$work/tree
    base=${TREE:-$work/base}
    if [[ ! -e $base/etc/debian_version ]]; then
        say "making a clean tree"
        debootstrap --variant=minbase --include=$INCLUDE $SUITE "$base" "$MIRROR" >"$work/debootstrap.log" 2>&1 ||
            { tail -n 20 "$work/debootstrap.log" >&2; die "debootstrap failed"; }
        printf 'deb %s %s main\n' "$MIRROR" "$SUITE" >"$base/etc/apt/sources.list"
    fi
    cp -a --reflink=auto "$base" "$tree"
    cp -L /etc/resolv.conf "$tree/etc/resolv.conf" 2>/dev/null || true
    cp "$deb" "$tree/var/tmp/shardwall.deb"
    say "installing what the package depends on"
    in_tree apt-get -q -y update >"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log" >&2; die "apt-get update failed"; }
    # First the dependencies alone, so that what is there before and after is the package's own.
    local -a needs
    mapfile -t needs < <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/ //g' | grep .)
    in_tree apt-get -q -y install --no-install-recommends "${needs[@]}" >>"$work/apt.log" 2>&1 ||
        { tail -n 20 "$work/apt.log" >&2; die "its dependencies cannot be installed"; }
    snapshot "$tree" >"$work/before"
    say "installing the package"
    in_tree apt-get -q -y install --no-install-recommends /var/tmp/shardwall.deb >>"$work/apt.log" 2>&1 ||
        { tail -n 20 "$work/apt.log" >&2; die "it cannot be installed"; }
    grep -q '^shardwall:' "$tree/etc/passwd" || die "there is no user shardwall"
    inside >"$tree/root/inside"
    chmod 755 "$tree/root/inside"
    cat >"$tree/etc/systemd/system/inside.service" <<'UNIT'
[Unit]
Wants=multi-user.target
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/root/inside
ExecStopPost=/bin/systemctl exit
UNIT
    : >"$work/report"
    say "booting the tree"
    timeout 240 systemd-nspawn --quiet --directory="$tree" --boot --register=no --keep-unit --private-network \
        --bind=/dev/net/tun --bind="$work/report:/report" --bind-ro=/sys/module --console=pipe \
        systemd.unit=inside.service >"$work/boot.log" 2>&1 </dev/null || true
    rm -f "$tree/etc/systemd/system/inside.service" "$tree/root/inside" "$tree/report"
    cat "$work/report"
    if ! tail -n 1 "$work/report" | grep -qx done; then
        tail -n 30 "$work/boot.log"
        die "the tree did not come to its end"
    fi
    if grep -q ^FAIL "$work/report"; then die "something failed"; fi
    snapshot "$tree" >"$work/after"
    if ! diff "$work/before" "$work/after"; then die "these are left behind (>) or gone (<)"; fi
    say "nothing is left behind; all passed in $((SECONDS - start)) s"
}

main "$@"
