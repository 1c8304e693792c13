#!/usr/bin/env bash
# Installs what `make demo`, `make test`, `make bench`, `make deb` and `make test-image` need and is not there yet.
set -euo pipefail

RUST_MIN=1.95

usage() {
    cat <<USAGE
Usage: deploy/setup.sh demo|test|bench|deb|image

Installs what is missing for \`make demo\`, \`make test\`, \`make bench\`, \`make deb\` and \`make test-deb\`, or
\`make test-image\` on Debian 12, and says what to do where it cannot. Changes nothing, and asks no network, when
everything is there.

  demo   the compiler's needs, DPDK with the virtual-device drivers, and the demo's programs
  test   all of that, and the programs that the tests and the checks run
  bench  what the demo needs, and those that the benchmarks compare with
  deb    what the demo needs, cargo-deb, and what \`make test-deb\` makes and boots a clean Debian with
  image  what makes the disk image of a package, and the emulator that boots it

Needs root or sudo only when a package is missing.
USAGE
}

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# DPDK loads its drivers at run time. librte-meta-net brings all of the port drivers (net_tap,
# net_pcap, net_null, net_ring and af_packet among them), by a name that outlives the ABI number.
DEMO_PACKAGES=(
    build-essential pkg-config clang libclang-dev
    libdpdk-dev librte-meta-bus librte-meta-mempool librte-meta-net libpcap0.8
    iproute2 iputils-ping curl python3 socat ethtool ca-certificates
)
# dpdk-dev has testpmd; systemd is here for systemd-analyze, valgrind to count instructions, and the
# browser, which needs a font, to look at the status page. mandoc and groff read the manual pages, the shells
# their completions.
TEST_PACKAGES=(
    "${DEMO_PACKAGES[@]}" conntrack nftables tcpdump dpdk-dev systemd valgrind
    chromium-headless-shell fonts-dejavu-core mandoc groff-base fish zsh
)
BENCH_PACKAGES=("${DEMO_PACKAGES[@]}" conntrack nftables dpdk-dev util-linux)
# systemd-nspawn boots the tree that debootstrap makes.
DEB_PACKAGES=("${DEMO_PACKAGES[@]}" debootstrap systemd-container dpkg-dev)
# mmdebstrap, mtools and sfdisk make the image; QEMU with its UEFI boots it, and ssh manages it.
IMAGE_PACKAGES=(
    mmdebstrap mtools fdisk e2fsprogs zstd qemu-system-x86 seabios ovmf openssh-client util-linux
    iproute2 iputils-ping curl python3 ca-certificates
)
# The benches run a switch of their own.
PEER_PACKAGES=(openvswitch-switch openvswitch-switch-dpdk)
# What tests/real runs: servers and clients of the protocols that have helpers. The library is one
# that amdump needs and its package does not ask for.
REAL_PACKAGES=(
    vsftpd lftp tftpd-hpa tftp-hpa ngircd sip-tester
    amanda-server amanda-client openbsd-inetd libencode-locale-perl
)
# The services that some of these packages bring along.
declare -A SERVICES=(
    [vsftpd]=vsftpd [tftpd-hpa]=tftpd-hpa [ngircd]=ngircd [openbsd-inetd]=inetd
    [openvswitch-switch]="openvswitch-switch ovsdb-server ovs-vswitchd ovs-record-hostname"
)

# The arguments that are not installed, one to a line.
missing_packages() {
    local status name
    local -A installed=()
    while read -r status name; do
        if [[ $status == installed ]]; then installed[$name]=1; fi
    done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    for name in "$@"; do
        if [[ -z ${installed[$name]:-} ]]; then printf '%s\n' "$name"; fi
    done
}

# Puts the words that run a command as root into AS_ROOT; fails when there is no way.
AS_ROOT=()
find_root() {
    if ((EUID == 0)); then
        AS_ROOT=()
    elif command -v sudo >/dev/null; then
        AS_ROOT=(sudo)
    else
        return 1
    fi
}

apt_get() {
    "${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@"
}

install_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    if ! find_root; then
        say "these packages are missing, and this is neither root nor a user with sudo:"
        die "    apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    apt_get update >&2
    apt_get install --no-install-recommends "${missing[@]}" >&2
}

# Installs packages that have servers, which starts no service, now or at the next boot: tests and
# benches run the programs themselves. Services of packages that were there before stay as they are,
# and no package is removed.
install_programs() {
    local -a missing
    local name service unit policy=/usr/sbin/policy-rc.d
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    if ! find_root; then
        say "these packages are missing, and this is neither root nor a user with sudo:"
        say "    apt-get install ${missing[*]}"
        die "some are servers: keep Debian from starting them (systemctl mask), if that matters"
    fi
    say "installing ${missing[*]}, without starting anything"
    apt_get update >&2
    for name in "${missing[@]}"; do
        for service in ${SERVICES[$name]:-}; do
            unit=/etc/systemd/system/$service.service
            if [[ -e $unit || -L $unit ]]; then continue; fi
            "${AS_ROOT[@]}" mkdir -p "${unit%/*}"
            "${AS_ROOT[@]}" ln -s /dev/null "$unit"
            say "masked ${unit##*/}: systemctl unmask lets it run"
        done
    done
    # Where there is no systemd, maintainer scripts ask this one: 101 forbids.
    if [[ ! -e $policy ]]; then
        # shellcheck disable=SC2064
        trap "${AS_ROOT[*]} rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | "${AS_ROOT[@]}" tee "$policy" >/dev/null
        "${AS_ROOT[@]}" chmod 755 "$policy"
    else
        policy=
    fi
    apt_get install --no-install-recommends --no-remove "${missing[@]}" >&2
    if [[ $policy ]]; then "${AS_ROOT[@]}" rm -f "$policy"; fi
    trap - EXIT
}

need_debian() {
    local id='' id_like='' name='this system'
    if [[ -r /etc/os-release ]]; then
        id=$(. /etc/os-release && printf '%s' "${ID:-}")
        id_like=$(. /etc/os-release && printf '%s' "${ID_LIKE:-}")
        name=$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-this system}")
    fi
    case " $id $id_like " in
        *' debian '*) command -v apt-get >/dev/null && return 0 ;;
    esac
    say "$name is not Debian: install these, or what they are called there, by hand:"
    say "    DPDK 22.11, 23.11 or 24.11 with headers, pkg-config file and the drivers net_tap,"
    say "    net_pcap, net_null, net_ring and net_af_packet; a C compiler; libclang; pkg-config"
    die "    by Debian's names: $*"
}

# Whether version $1 is at least version $2.
at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

need_rust() {
    local how="https://rustup.rs gives it:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default
    . \"\$HOME/.cargo/env\""
    local version
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        if [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
            die "cargo is in ${CARGO_HOME:-$HOME/.cargo}/bin, which is not in PATH: run" \
                ". \"${CARGO_HOME:-$HOME/.cargo}/env\" first"
        fi
        die "Rust $RUST_MIN or later is needed, and Debian 12's is older. $how"
    fi
    version=$(rustc --version) || die "rustc does not run. $how"
    version=${version#rustc }
    version=${version%% *}
    if ! at_least "$version" "$RUST_MIN"; then
        if command -v rustup >/dev/null; then
            die "Rust $version is older than $RUST_MIN: rustup update stable"
        fi
        die "Rust $version is older than $RUST_MIN. $how"
    fi
}

# rustfmt and clippy: part of rustup's default profile, not of its minimal one.
need_component() {
    local component=$1 program=$2
    command -v "$program" >/dev/null && "$program" --version >/dev/null 2>&1 && return 0
    if ! command -v rustup >/dev/null; then
        die "$program is missing: install the package of your Rust toolchain that has it"
    fi
    say "adding the Rust component $component"
    rustup component add "$component" >&2
}

need_cargo_deny() {
    command -v cargo-deny >/dev/null && return 0
    say "building cargo-deny, which takes some minutes"
    cargo install cargo-deny --locked >&2
}

need_cargo_deb() {
    command -v cargo-deb >/dev/null && return 0
    say "building cargo-deb, which takes some minutes"
    cargo install cargo-deb --locked >&2
}

# Fuzzing is for those who have a nightly toolchain; nobody is asked to install one.
need_cargo_fuzz() {
    rustup toolchain list 2>/dev/null | grep -q '^nightly' || return 0
    cargo fuzz --version >/dev/null 2>&1 && return 0
    say "building cargo-fuzz"
    cargo install cargo-fuzz --locked >&2
}

need_cargo_deb() {
    command -v cargo-deb >/dev/null && return 0
    say "building cargo-deb, which takes some minutes"
    cargo install cargo-deb --locked >&2
}

# Installing the package would start a Prometheus server on this machine, so its programs are unpacked
# beside the build instead.
need_prometheus() {
    command -v prometheus >/dev/null && command -v promtool >/dev/null && return 0
    local program tools=${CARGO_TARGET_DIR:-target}/tools
    [[ -x $tools/prometheus && -x $tools/promtool ]] && return 0
    say "unpacking prometheus and promtool from Debian's package prometheus into $tools"
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    if ! (cd "$work" && apt-get -q download prometheus >&2 2>/dev/null); then
        find_root || die "apt does not know the package prometheus: run apt-get update as root"
        apt_get update >&2
        (cd "$work" && apt-get -q download prometheus >&2)
    fi
    dpkg-deb -x "$work"/prometheus_*.deb "$work/root"
    mkdir -p "$tools"
    for program in prometheus promtool; do
        install -m 755 "$work/root/usr/bin/$program" "$tools/$program"
    done
}

# Grafana's schema as types, and what checks them. Nobody is asked to install npm.
GRAFANA_SCHEMA=(@grafana/schema@13.2.3 typescript@5.9.3)
need_grafana_schema() {
    local tools=${CARGO_TARGET_DIR:-target}/tools/grafana
    command -v npm >/dev/null || return 0
    [[ -x $tools/node_modules/.bin/tsc && -d $tools/node_modules/@grafana/schema ]] && return 0
    say "fetching Grafana's schema into $tools"
    mkdir -p "$tools"
    npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund --legacy-peer-deps --omit=peer \
        --loglevel=error "${GRAFANA_SCHEMA[@]}" >&2
}

main() {
    local -a packages programs=()
    case ${1:-} in
        demo) packages=("${DEMO_PACKAGES[@]}") ;;
        test)
            packages=("${TEST_PACKAGES[@]}") programs=("${REAL_PACKAGES[@]}")
            # Amanda asks for a way to send mail; this one listens to nobody.
            if [[ ! -x /usr/sbin/sendmail ]]; then programs+=(msmtp-mta); fi
            ;;
        bench) packages=("${BENCH_PACKAGES[@]}") programs=("${PEER_PACKAGES[@]}") ;;
        deb) packages=("${DEB_PACKAGES[@]}") ;;
        image) packages=("${IMAGE_PACKAGES[@]}") ;;
        -h | --help)
            usage
            return 0
            ;;
        *)
            usage >&2
            return 2
            ;;
    esac
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    need_debian "${packages[@]}" "${programs[@]}"
    install_packages "${packages[@]}"
    if [[ $1 != image ]]; then need_rust; fi
    if ((${#programs[@]})); then install_programs "${programs[@]}"; fi
    if [[ $1 == test ]]; then
        need_component rustfmt cargo-fmt
        need_component clippy cargo-clippy
        need_cargo_deny
        need_cargo_fuzz
        need_prometheus
        need_grafana_schema
    fi
    if [[ $1 == deb ]]; then need_cargo_deb; fi
    if [[ ! -c /dev/net/tun ]]; then
        say "warning: /dev/net/tun is not there (modprobe tun); net_tap ports need it"
    fi
}

main "$@"
