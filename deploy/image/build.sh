#!/usr/bin/env bash
# Builds a disk image of Debian 12 with the package in it, for `dd` to a box's disk or for a virtual
# machine: GPT, an EFI system partition with systemd-boot, and a root file system.
#
# What is in it beside Debian's minimum: a kernel with the IOMMU turned on for vfio-pci, driverctl, DHCP on
# the interfaces that the kernel has, an ssh server, a console on the first serial port. The firewall is off
# until its policy names the box's NICs, as after every installation of the package.
#
# Nobody can log in until somebody says who: --key puts an ssh key of root's into the image, and a hypervisor
# may give one as systemd's credential `ssh.authorized_keys.root` (deploy/image/test.py does). There is no
# password. Host keys and the machine's id are made at first boot.
#
# Needs no loop device: mke2fs and mtools write the file systems at their offsets.
set -euo pipefail

SUITE=bookworm
MIRROR=${MIRROR:-http://deb.debian.org/debian}
SECURITY=${SECURITY:-http://deb.debian.org/debian-security}
PACKAGES=(
    linux-image-amd64 initramfs-tools zstd systemd-sysv systemd-boot-efi dbus udev kmod pciutils
    iproute2 iputils-ping procps less openssh-server driverctl logrotate bash-completion
)
# MiB of the EFI partition, which has the kernel and its initrd, and of all the disk. Root gets the rest.
EFI_MIB=256
DISK_MIB=${DISK_MIB:-2560}
# iommu=pt: what is not passed to user space goes without translation.
CMDLINE="root=PARTLABEL=shardwall-root rw intel_iommu=on iommu=pt console=tty0 console=ttyS0,115200"
# Programs of Debian that lie in sbin.
PATH=$PATH:/usr/sbin:/sbin

usage() {
    cat <<USAGE
Usage: ${0##*/} [--package DEB] [--output FILE] [--key FILE]

  --package DEB   the package (default: the newest in target/debian, which \`make deb\` makes)
  --output FILE   the image (default: target/image/shardwall.img), a sparse file of $DISK_MIB MiB (DISK_MIB=)
  --key FILE      public ssh keys with which root may log in

Needs root, Debian's mirror (MIRROR= and SECURITY= name others), and what \`deploy/setup.sh image\` installs.
The Debian below the package is kept beside the image, and taken from there the next time.
USAGE
}

say() { printf 'image: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# run LOG COMMAND...: says nothing unless the command fails.
run() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 || {
        tail -n 25 "$log" >&2
        die "this failed: $*"
    }
}

need() {
    local program
    if ((EUID)); then die "this needs root: the image has files of many users"; fi
    for program in mmdebstrap mke2fs mcopy mformat sfdisk dpkg-deb; do
        command -v "$program" >/dev/null || die "$program is missing: deploy/setup.sh image"
    done
}

# Debian with what the package depends on, as a tar archive whose name says what is in it. Made anew after
# a month, for the sake of Debian's updates.
base() {
    local deb=$1 folder=$2 needs name archive
    needs=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/ //g' | grep . | paste -sd,)
    name=$(printf '%s' "$SUITE $MIRROR $SECURITY ${PACKAGES[*]} $needs" | sha256sum | cut -c1-12)
    archive=$folder/debian-$name.tar
    find "$folder" -maxdepth 1 -name 'debian-*.tar' \( -not -name "${archive##*/}" -o -mtime +30 \) -delete
    if [[ ! -e $archive ]]; then
        say "installing Debian, once: two minutes"
        rm -f "$archive.new"
        run "$folder/debian.log" mmdebstrap --variant=minbase --mode=root --format=tar \
            --include="$(IFS=,; printf '%s' "${PACKAGES[*]}"),$needs" \
            --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-include=/usr/share/doc/shardwall/*' \
            $SUITE "$archive.new" \
            "deb $MIRROR $SUITE main" "deb $MIRROR $SUITE-updates main" "deb $SECURITY $SUITE-security main"
        mv "$archive.new" "$archive"
    fi
    printf '%s\n' "$archive"
}

in_tree() { DEBIAN_FRONTEND=noninteractive chroot "$tree" "$@"; }

# Writes standard input to a file of the tree.
put() { install -D -m "${2:-644}" /dev/stdin "$tree/$1"; }

# What makes a Debian tree an appliance.
configure() {
    local deb=$1 key=$2 unit
    cp "$deb" "$tree/var/tmp/shardwall.deb"
    run "$work/install.log" in_tree dpkg -i /var/tmp/shardwall.deb
    rm "$tree/var/tmp/shardwall.deb"

    put etc/fstab <<'FSTAB'
PARTLABEL=shardwall-root / ext4 noatime,errors=remount-ro 0 1
PARTLABEL=shardwall-efi /boot/efi vfat umask=0077,nofail 0 0
FSTAB
    mkdir -p "$tree/boot/efi"
    echo shardwall | put etc/hostname
    put etc/hosts <<<$'127.0.0.1 localhost\n127.0.1.1 shardwall\n::1 localhost'
    # Empty, and not "uninitialized": a first boot in systemd's sense would turn every unit on.
    put etc/machine-id 444 </dev/null

    put etc/systemd/network/80-dhcp.network <<'NETWORK'
# The interfaces that the kernel has: those of the firewall are not among them once they are bound.
[Match]
Type=ether

[Network]
DHCP=yes
NETWORK
    put etc/systemd/system/ssh.service.d/keys.conf <<'UNIT'
[Service]
# Not in the image, or all boxes would have the same.
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
UNIT
    rm -f "$tree"/etc/ssh/ssh_host_*
    if [[ -n $key ]]; then
        put root/.ssh/authorized_keys 600 <"$key"
        chmod 700 "$tree/root/.ssh"
    fi
    for unit in systemd-networkd ssh serial-getty@ttyS0; do run "$work/enable.log" in_tree systemctl enable $unit; done
    # A firewall's boot does not wait for its management.
    run "$work/enable.log" in_tree systemctl mask systemd-networkd-wait-online.service
    # There are no logins but ssh's, which PAM would ask about.
    run "$work/enable.log" in_tree passwd -l root

    # The boot loader's copies of the kernel follow Debian's updates.
    put etc/initramfs/post-update.d/zz-efi 755 <<'HOOK'
#!/bin/sh
set -e
mountpoint -q /boot/efi || exit 0
cp "/boot/vmlinuz-$1" /boot/efi/vmlinuz
cp "$2" /boot/efi/initrd.img
sync -f /boot/efi
HOOK
}

# The EFI system partition, in the image at an offset in bytes.
write_efi() {
    local image=$1 offset=$2 drive
    drive=$image@@$offset
    mformat -i "$drive" -F -T $((EFI_MIB * 2048)) -v SHARDWALL ::
    mmd -i "$drive" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
    mcopy -i "$drive" "$tree/usr/lib/systemd/boot/efi/systemd-bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
    mcopy -i "$drive" "$tree"/boot/vmlinuz-* ::/vmlinuz
    mcopy -i "$drive" "$tree"/boot/initrd.img-* ::/initrd.img
    printf 'timeout 0\n' | mcopy -i "$drive" - ::/loader/loader.conf
    printf 'title shardwall\nlinux /vmlinuz\ninitrd /initrd.img\noptions %s\n' "$CMDLINE" |
        mcopy -i "$drive" - ::/loader/entries/shardwall.conf
}

write_disk() {
    local image=$1 root=$((EFI_MIB + 1))
    rm -f "$image"
    truncate -s "${DISK_MIB}M" "$image"
    run "$work/sfdisk.log" sfdisk "$image" < <(printf '%s\n' 'label: gpt' \
        "start=1MiB, size=${EFI_MIB}MiB, type=uefi, name=shardwall-efi" \
        "start=${root}MiB, size=$((DISK_MIB - root - 1))MiB, type=linux, name=shardwall-root")
    write_efi "$image" $((1024 * 1024))
    run "$work/mke2fs.log" mke2fs -t ext4 -L shardwall -d "$tree" -E offset=$((root * 1024 * 1024)) \
        "$image" $((DISK_MIB - root - 1))M
}

main() {
    local deb='' image=target/image/shardwall.img key='' start=$SECONDS folder archive
    while (($#)); do
        case $1 in
            --package | --output | --key)
                if (($# < 2)); then
                    usage >&2
                    exit 2
                fi
                # The caller's paths, whatever this changes to.
                case $1 in
                    --package) deb=$(realpath "$2") ;;
                    --output) image=$(realpath -m "$2") ;;
                    --key) key=$(realpath "$2") ;;
                esac
                shift
                ;;
            -h | --help)
                usage
                return
                ;;
            *)
                usage >&2
                exit 2
                ;;
        esac
        shift
    done
    need
    exec </dev/null
    cd "$(dirname "${BASH_SOURCE[0]}")/../.."
    if [[ -z $deb ]]; then
        deb=$(find "${CARGO_TARGET_DIR:-target}/debian" -name 'shardwall_*.deb' -printf '%T@ %p\n' 2>/dev/null |
            sort -n | tail -n 1 | cut -d' ' -f2)
    fi
    [[ -f $deb ]] || die "there is no package: make deb"
    if [[ -n $key && ! -f $key ]]; then die "there is no file $key"; fi
    folder=$(dirname "$image")
    mkdir -p "$folder"
    # What a run that was killed left behind.
    rm -rf --one-file-system "$folder"/build.*
    work=$(mktemp -d "$folder/build.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf --one-file-system '$work'" EXIT
    archive=$(base "$deb" "$folder")
    tree=$work/tree
    mkdir "$tree"
    chmod 755 "$tree"
    tar -C "$tree" --xattrs --xattrs-include='*' -xpf "$archive"
    say "installing ${deb##*/}"
    configure "$deb" "$key"
    write_disk "$image.new"
    mv "$image.new" "$image"
    say "$image: $(du -m "$image" | cut -f1) MiB of $DISK_MIB in use, made in $((SECONDS - start)) s"
}

work='' tree=''
main "$@"
