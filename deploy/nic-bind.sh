#!/usr/bin/env bash
# Gives NICs to shardwall, and back to the kernel.
#
# driverctl does the work where it is installed, and keeps the binding over reboots;
# dpdk-devbind.py does it otherwise, until the next one.
set -euo pipefail

PCI=/sys/bus/pci/devices
NET=/sys/class/net
# driverctl's unit may run while udev still sets the device up ("driver/unbind: Permission denied").
DROPIN=/etc/systemd/system/driverctl@.service.d/shardwall.conf

usage() {
    cat <<USAGE
Usage: ${0##*/} [--driver NAME] [--force] [--dry-run] DEVICE...
       ${0##*/} --undo [--dry-run] DEVICE...
       ${0##*/} --status

DEVICE is a PCI address (0000:03:00.0, or 03:00.0) or the name of a network interface.

  --driver NAME   vfio-pci (default), or uio_pci_generic where there is no IOMMU
  --undo          give the devices back to their kernel driver
  --status        the network devices, their drivers, and what stands against binding them
  --force         bind even what carries the default route or an SSH connection
  --dry-run       say what would be done, and do nothing

Exit status: 0 done, 1 refused or failed, 2 usage.
USAGE
}

say() { printf 'nic-bind: %s\n' "$*"; }
warn() { printf 'nic-bind: %s\n' "$*" >&2; }
die() {
    warn "$@"
    exit 1
}
bad_usage() {
    warn "$* (--help says more)"
    exit 2
}

dry_run=0
do_it() {
    if ((dry_run)); then
        say "would run: $*"
    else
        "$@"
    fi
}

put() {
    if ((dry_run)); then
        say "would write \"$1\" to $2"
    else
        printf '%s\n' "$1" >"$2"
    fi
}

PCI_PATTERN='[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]'

# The PCI address behind an interface, through a virtio device too; nothing if there is none.
address_of_interface() {
    [[ -e $NET/$1/device ]] || return 0
    realpath "$NET/$1/device" | grep -oE "$PCI_PATTERN" | tail -n 1 || true
}

# The PCI address that the user means.
resolve() {
    local name=$1 address
    address=${name,,}
    if [[ $address =~ ^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]]; then address=0000:$address; fi
    if [[ $address =~ ^$PCI_PATTERN$ ]]; then
        [[ -e $PCI/$address ]] || die "there is no PCI device $address"
    elif [[ -e $NET/$name ]]; then
        address=$(address_of_interface "$name")
        [[ -n $address ]] || die "$name is not on a PCI device"
    else
        die "$name is neither a PCI address nor a network interface (--status lists both)"
    fi
    [[ $(<"$PCI/$address/class") == 0x02* ]] || die "$address is not a network device"
    printf '%s\n' "$address"
}

interfaces_of() {
    local dir
    for dir in "$PCI/$1"/net/* "$PCI/$1"/virtio*/net/*; do
        if [[ -e $dir ]]; then printf '%s\n' "${dir##*/}"; fi
    done
}

driver_of() {
    if [[ -e $PCI/$1/driver ]]; then basename "$(realpath "$PCI/$1/driver")"; fi
}

group_of() {
    if [[ -e $PCI/$1/iommu_group ]]; then basename "$(realpath "$PCI/$1/iommu_group")"; fi
}

# An interface and every interface below it: members of a bond or bridge, the parent of a VLAN.
with_lower() {
    local below
    printf '%s\n' "$1"
    for below in "$NET/$1"/lower_*; do
        if [[ -e $below ]]; then with_lower "${below##*/lower_}"; fi
    done
}

default_route_interfaces() {
    { ip -4 route show table all default; ip -6 route show table all default; } 2>/dev/null |
        grep -v '^unreachable' | grep -oP '\bdev \K\S+' || true
}

# This box's ends of SSH connections: sudo hides SSH_CONNECTION, so the sockets are asked too.
ssh_local_addresses() {
    local -a words=()
    if [[ -n ${SSH_CONNECTION:-} ]]; then
        read -ra words <<<"$SSH_CONNECTION"
        printf '%s\n' "${words[2]:-}"
    fi
    ss -Htnp state established 2>/dev/null |
        awk '/"sshd/ || $3 ~ /:22$/ { sub(/:[0-9]+$/, "", $3); gsub(/[][]/, "", $3);
             sub(/^::ffff:/, "", $3); sub(/%.*/, "", $3); print $3 }' || true
}

ssh_interfaces() {
    local address
    ssh_local_addresses | sort -u | while read -r address; do
        if [[ -n $address ]]; then
            ip -o address show 2>/dev/null | awk -v a="$address" '
                { split($4, p, "/"); if (p[1] == a) { sub(/@.*/, "", $2); print $2 } }'
        fi
    done
}

# protected_by LIST-FUNCTION INTERFACE: whether the interface, or one on top of it, is listed.
protected_by() {
    local listed
    while read -r listed; do
        if [[ -n $listed ]] && with_lower "$listed" | grep -qxF "$2"; then return 0; fi
    done < <("$1" | sort -u)
    return 1
}

# Why an interface must stay with the kernel; nothing if it need not.
reason_to_keep() {
    if protected_by default_route_interfaces "$1"; then
        printf 'carries the default route'
    elif protected_by ssh_interfaces "$1"; then
        printf 'carries an SSH connection'
    fi
}

# NICs whose DPDK driver works through the kernel's, which must stay bound.
is_bifurcated() {
    case $(<"$PCI/$1/vendor") in
        0x15b3 | 0x1414) return 0 ;; # NVIDIA (Mellanox), Microsoft
    esac
    return 1
}

status() {
    local dir address driver interface note why found=0
    printf '%-13s %-16s %-12s %-5s %-5s %s\n' DEVICE DRIVER INTERFACE NODE GROUP NOTE
    for dir in "$PCI"/*; do
        [[ -r $dir/class && $(<"$dir/class") == 0x02* ]] || continue
        found=1
        address=${dir##*/}
        driver=$(driver_of "$address")
        note=''
        if is_bifurcated "$address"; then note='leave it with its kernel driver'; fi
        while read -r interface; do
            why=$(reason_to_keep "$interface")
            if [[ -n $why ]]; then note+="${note:+; }$interface $why"; fi
        done < <(interfaces_of "$address")
        if [[ -e /etc/driverctl.d/pci-$address ]]; then
            note+="${note:+; }kept by driverctl: $(<"/etc/driverctl.d/pci-$address")"
        fi
        interface=$(interfaces_of "$address" | paste -sd, -)
        printf '%-13s %-16s %-12s %-5s %-5s %s\n' "$address" "${driver:--}" "${interface:--}" \
            "$(cat "$dir/numa_node" 2>/dev/null || echo -)" "$(group_of "$address" | grep . || echo -)" \
            "$note"
    done
    if ((!found)); then say "no network device on the PCI bus"; fi
    if ! has_iommu; then say "no IOMMU is in use: vfio-pci will not work (binding says what to do)"; fi
}

has_iommu() {
    [[ -n $(ls -A /sys/kernel/iommu_groups 2>/dev/null) ]]
}

need_iommu() {
    local address=$1
    [[ -n $(group_of "$address") ]] && return
    warn "$address is in no IOMMU group, and vfio-pci needs one. Either"
    warn "  turn the IOMMU on: VT-d or AMD-Vi in the firmware, and on the kernel's command line"
    warn "      intel_iommu=on iommu=pt        (AMD: iommu=pt), then update-grub and reboot"
    warn "  or, in a virtual machine or on a box that has none, do without its protection:"
    die "      $0 --driver uio_pci_generic ..."
}

# All devices of an IOMMU group go to user space together.
need_whole_group() {
    local address=$1 other driver
    shift
    for other in "$PCI/$address"/iommu_group/devices/*; do
        other=${other##*/}
        if [[ $other == "$address" || " $* " == *" $other "* ]]; then continue; fi
        if [[ $(<"$PCI/$other/class") == 0x06* ]]; then continue; fi
        driver=$(driver_of "$other")
        case $driver in
            '' | vfio-pci | pci-stub) ;;
            *)
                die "$address shares IOMMU group $(group_of "$address") with $other, which $driver" \
                    "has: bind both, or put the NIC into another slot"
                ;;
        esac
    done
}

check_device() {
    local address=$1 driver=$2 force=$3 interface why
    shift 3
    while read -r interface; do
        why=$(reason_to_keep "$interface")
        if [[ -z $why ]]; then continue; fi
        if ((force)); then
            warn "$interface ($address) $why; bound all the same (--force)"
        else
            die "$interface ($address) $why: binding it would cut this box off (--force does it" \
                "anyway)"
        fi
    done < <(interfaces_of "$address")
    if is_bifurcated "$address" && ((!force)); then
        die "$address works through its kernel driver $(driver_of "$address"): name it in the" \
            "policy as it is, bind nothing"
    fi
    if [[ $driver == vfio-pci ]]; then
        need_iommu "$address"
        need_whole_group "$address" "$@"
    fi
}

load_driver() {
    if [[ -e /sys/bus/pci/drivers/$1 ]]; then return; fi
    if ((dry_run)); then
        say "would run: modprobe $1"
    else
        modprobe "$1" || die "the kernel has no driver $1 (modprobe $1 failed)"
    fi
}

find_program() {
    local dir
    for dir in ${PATH//:/ } /usr/local/sbin /usr/sbin /sbin /usr/bin; do
        if [[ -x $dir/$1 ]]; then
            printf '%s\n' "$dir/$1"
            return
        fi
    done
    return 1
}

wait_for_udev() {
    if [[ -e $DROPIN ]]; then return; fi
    if ((dry_run)); then
        say "would write $DROPIN"
        return
    fi
    mkdir -p "${DROPIN%/*}"
    cat >"$DROPIN" <<'UNIT'
# Written by shardwall's nic-bind.sh: let udev finish with a device before its driver changes.
[Unit]
Wants=systemd-udev-settle.service
After=systemd-udev-settle.service
UNIT
    reload_systemd
}

reload_systemd() {
    if [[ -d /run/systemd/system ]]; then systemctl daemon-reload; fi
}

bind_device() {
    local address=$1 driver=$2 tool kept="until the next reboot"
    if [[ $(driver_of "$address") == "$driver" && -e /etc/driverctl.d/pci-$address ]]; then
        say "$address: has $driver already"
        return
    fi
    load_driver "$driver"
    if tool=$(find_program driverctl); then
        wait_for_udev
        do_it "$tool" set-override "$address" "$driver" || die "$address: driverctl could not bind it"
        kept="kept over reboots"
    elif tool=$(find_program dpdk-devbind.py); then
        do_it "$tool" --bind="$driver" "$address" || die "$address: dpdk-devbind.py could not bind it"
    else
        die "neither driverctl nor dpdk-devbind.py is installed: apt-get install driverctl"
    fi
    if ((dry_run)); then return; fi
    [[ $(driver_of "$address") == "$driver" ]] || die "$address: did not go to $driver (see dmesg)"
    say "$address: bound to $driver, $kept"
    if [[ $kept == until* ]]; then say "    install driverctl for a binding that stays"; fi
}

release_device() {
    local address=$1 tool driver
    driver=$(driver_of "$address")
    if [[ -e /etc/driverctl.d/pci-$address ]] && tool=$(find_program driverctl); then
        # It reports a failure when no driver takes the device; what counts is checked below.
        do_it "$tool" unset-override "$address" || true
    else
        case $driver in
            vfio-pci | uio_pci_generic | igb_uio | '') ;;
            *)
                say "$address: is with its kernel driver $driver already"
                return
                ;;
        esac
        if [[ -n $driver ]]; then put "$address" "$PCI/$address/driver/unbind"; fi
        # An empty override lets the kernel choose again.
        put '' "$PCI/$address/driver_override"
        put "$address" /sys/bus/pci/drivers_probe
    fi
    if ((dry_run)); then return; fi
    driver=$(driver_of "$address")
    case $driver in
        '' | vfio-pci | uio_pci_generic) die "$address: no kernel driver took it back (see dmesg)" ;;
        *) say "$address: back with $driver" ;;
    esac
}

drop_dropin() {
    if [[ ! -e $DROPIN || -n $(ls -A /etc/driverctl.d 2>/dev/null) ]]; then return; fi
    if ((dry_run)); then return; fi
    rm -f "$DROPIN"
    rmdir --ignore-fail-on-non-empty "${DROPIN%/*}"
    reload_systemd
}

main() {
    local driver=vfio-pci force=0 action=bind name address
    local -a names=() addresses=()
    while (($#)); do
        case $1 in
            --driver)
                if (($# < 2)); then bad_usage "--driver needs a value"; fi
                driver=$2
                shift
                ;;
            --undo) action=undo ;;
            --status) action=status ;;
            --force) force=1 ;;
            --dry-run) dry_run=1 ;;
            -h | --help)
                usage
                exit 0
                ;;
            -*) bad_usage "unknown option $1" ;;
            *) names+=("$1") ;;
        esac
        shift
    done
    if [[ $action == status ]]; then
        status
        return
    fi
    if ((${#names[@]} == 0)); then
        usage >&2
        exit 2
    fi
    case $driver in
        vfio-pci | uio_pci_generic) ;;
        *) bad_usage "--driver is vfio-pci or uio_pci_generic, not $driver" ;;
    esac
    for name in "${names[@]}"; do
        address=$(resolve "$name") || exit 1
        addresses+=("$address")
    done
    if ((!dry_run && EUID != 0)); then die "this needs root"; fi
    if [[ $action == undo ]]; then
        for address in "${addresses[@]}"; do release_device "$address"; done
        drop_dropin
        return
    fi
    # Look at all of them before any is touched.
    for address in "${addresses[@]}"; do
        check_device "$address" "$driver" "$force" "${addresses[@]}"
    done
    for address in "${addresses[@]}"; do bind_device "$address" "$driver"; done
}

main "$@"
