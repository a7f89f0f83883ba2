#!/bin/bash
# PID 1 of an emulated host: makes the inside of its namespaces look like a host of its own, then reaps children.
# Arguments: the host's name, its folder, then one "PATH VERSION OPTIONS" triple per cgroup hierarchy.
set -eu
name=$1 folder=$2
shift 2

hostname "$name"
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 2> /dev/null || true

resolver=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$(dirname "$resolver")"
[ -e "$resolver" ] || : > "$resolver"
mount --bind "$folder/resolv.conf" "$resolver"
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/etc-docker" /etc/docker

# The cgroup namespace was entered before the fork: mounted again, each hierarchy shows this host's part only.
umount -R /sys/fs/cgroup
if [ "$2" != 2 ] || [ "$1" != /sys/fs/cgroup ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
fi
while [ $# -gt 0 ]; do
    path=$1 version=$2 options=$3
    shift 3
    mkdir -p "$path"
    if [ "$version" = 2 ]; then
        mount -t cgroup2 cgroup2 "$path"
    else
        mount -t cgroup -o "$options" cgroup "$path"
    fi
    echo 0 > "$path/system/cgroup.procs"
    if [ "$version" = 2 ]; then
        for controller in $(cat "$path/cgroup.controllers"); do
            echo "+$controller" > "$path/cgroup.subtree_control" 2> /dev/null || true
        done
    fi
done

: > "$folder/ready"
exec > /dev/null 2>&1
trap : TERM INT HUP
# A bash reaps every child that the kernel hands it, also those it did not start itself.
while :; do
    sleep infinity &
    wait $! || true
done
