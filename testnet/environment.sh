# Sourced by testnet/run and tests/run: makes what a fresh machine lacks, and says what it does.
# Needs nothing but bash and a Debian with apt for the part that installs packages.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$repository/.venv/bin/python

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    [ $# -lt 2 ] || say "hint: $2"
    exit 1
}

# The releases this was tried on, and the Docker Engine that each of them has. Another version may work; it is not
# installed by this script.
engine_version() {
    case $1 in
        bookworm) echo '20.10*' ;;
        trixie) echo '26.1*' ;;
        *) return 1 ;;
    esac
}

# The releases of what membership and consensus are measured beside and under, as Debian has them.
peer_version() {
    case $1:$2 in
        bookworm:serf) echo '0.9.4*' ;;
        bookworm:stress-ng) echo '0.15.*' ;;
        bookworm:etcd-server | bookworm:etcd-client) echo '3.4.23*' ;;
        trixie:serf) echo '0.10.1*' ;;
        trixie:stress-ng) echo '0.19.*' ;;
        trixie:etcd-server | trixie:etcd-client) echo '3.5.16*' ;;
        *) return 1 ;;
    esac
}

# install_packages WHY PACKAGE...: with apt as root on a known Debian; says what to install otherwise.
install_packages() {
    local why=$1
    shift
    local codename=
    [ ! -r /etc/os-release ] || codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || true
    if [ -z "$codename" ] || ! engine_version "$codename" > /dev/null; then
        fail "$why, and this is not a Debian that this script knows (bookworm, trixie)" \
            "install what Debian calls: ${*//=*/}; then run this again"
    fi
    [ "$(id -u)" = 0 ] || fail "$why" "as root: apt-get install $*"
    say "installing with apt from Debian $codename: $*  ($why)"
    local log
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
        > "$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt could not install: $*" "the whole output is in $log"
    fi
    rm -f "$log"
}

# What emulated hosts need: an engine, namespaces, a firewall, and Debian packages to make images from.
ensure_host_tools() {
    local wanted=() program package found
    for program in dockerd:docker.io ip:iproute2 iptables:iptables tc:iproute2 mmdebstrap:mmdebstrap nsenter:util-linux; do
        package=${program#*:}
        found=$(PATH=$PATH:/usr/sbin:/sbin command -v "${program%%:*}") || true
        [ -n "$found" ] || [[ " ${wanted[*]} " == *" $package "* ]] || wanted+=("$package")
    done
    if [ -d /sys/kernel/security/apparmor ] && ! command -v apparmor_parser > /dev/null; then
        wanted+=(apparmor) # an engine on such a kernel wants to load its profile
    fi
    if [ ${#wanted[@]} -gt 0 ]; then
        local codename version i
        codename=$(. /etc/os-release 2> /dev/null && echo "${VERSION_CODENAME:-}") || true
        for i in "${!wanted[@]}"; do
            if [ "${wanted[$i]}" = docker.io ] && version=$(engine_version "$codename"); then
                wanted[i]="docker.io=$version"
            fi
        done
        install_packages "emulated hosts need programs that are missing" "${wanted[@]}"
    fi
    [ "$(id -u)" = 0 ] || fail "emulated hosts need root: network namespaces, mounts and cgroups" \
        "run this with sudo, or use your own Docker: ./testnet/run up --engine shared"
}

# ensure_peers PROGRAM[:PACKAGE]...: programs that only one measurement needs; most are named as their packages are.
ensure_peers() {
    local wanted=() program package codename version
    codename=$(. /etc/os-release 2> /dev/null && echo "${VERSION_CODENAME:-}") || true
    for program in "$@"; do
        package=${program#*:}
        command -v "${program%%:*}" > /dev/null && continue
        version=$(peer_version "$codename" "$package") && wanted+=("$package=$version") || wanted+=("$package")
    done
    [ ${#wanted[@]} -eq 0 ] || install_packages "this measurement needs programs that are missing" "${wanted[@]}"
}

# Debian starts a service of its own with the package: measurements start theirs, and want the disk to themselves.
ensure_etcd() {
    ! { command -v etcd && command -v etcdctl; } > /dev/null || return 0
    ensure_peers etcd:etcd-server etcdctl:etcd-client
    [ ! -d /run/systemd/system ] || systemctl disable --quiet --now etcd || true
}

ensure_image_tools() {
    command -v mmdebstrap > /dev/null || install_packages "the images are made from Debian packages" mmdebstrap
}

# The virtual environment, made again only when pyproject.toml changed.
ensure_environment() {
    local wanted base
    wanted=$(sha256sum < "$repository/pyproject.toml")
    if [ -x "$python" ] && [ "$(cat "$repository/.venv/stamp" 2> /dev/null)" = "$wanted" ]; then
        return
    fi
    base=$(command -v python3) || { install_packages "Python 3.11 or newer is missing" python3 python3-venv; base=python3; }
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed; $base is $("$base" --version)" "put a newer python3 first in PATH"
    if [ ! -x "$python" ]; then
        "$base" -c 'import ensurepip, venv' 2> /dev/null ||
            install_packages "Python's venv module is missing" python3-venv
        say "making the virtual environment .venv"
        "$base" -m venv "$repository/.venv" || fail "cannot make $repository/.venv"
    fi
    say "installing swarm and its tools into .venv"
    "$python" -m pip install --quiet --disable-pip-version-check -e "$repository[dev]" ||
        fail "pip could not install swarm" "its output is above; a package index must be reachable"
    printf '%s\n' "$wanted" > "$repository/.venv/stamp"
}
