#!/bin/bash
# Prepares a host for ovs-vswitchd with DPDK: hugepages, hugetlbfs, vfio-pci, NICs.
#
# usage: hugepage-setup.sh [OPTION...]
#
# Hugepages
#   --pages N         have exactly N hugepages reserved
#   --size SIZE       page size, 2M or 1G (default: the kernel's default hugepage size)
#   --node N          on NUMA node N only (default: the kernel spreads them over all nodes)
#   --mount DIR       mount hugetlbfs of that page size on DIR (default when --pages is given:
#                     where it is mounted already, else /dev/hugepages, or /dev/hugepages-SIZE
#                     for a size that is not the kernel's default)
#   --no-mount        do not mount anything
#
# NICs (PCI addresses as 0000:03:00.0 or 03:00.0; several separated by commas or by repeating)
#   --bind ADDR       load the driver and bind the NIC to it with dpdk-devbind.py
#   --driver NAME     driver for --bind (vfio-pci; uio_pci_generic also works, without protection)
#   --noiommu         allow vfio-pci without an IOMMU (unsafe: the NIC can write to all memory)
#   --force           bind even if the NIC's interface has an address
#   --unbind ADDR     give the NIC back to its kernel driver
#
# Other
#   --persist         keep pages, mount and modules across reboots (files named ovs-dpdk in /etc)
#   --unpersist       remove what --persist wrote
#   --status          print the state (also printed after every change)
#   -h, --help        print this text
#
# Everything is idempotent: what is in the wanted state already is left alone and said so.
# Exit code: 0 done, 1 refused (the message names what is missing and what to do), 2 bad usage.
set -uo pipefail
export LC_ALL=C

me=${0##*/}
sysfs=/sys etc=/etc
pages='' size='' node='' mount='' do_mount=auto persist='' force='' noiommu='' driver=vfio-pci
bind=() unbind=()

say() { printf '%s: %s\n' "$me" "$*"; }
# refuse WHAT-IS-MISSING [WHAT-TO-DO]
refuse() {
    printf '%s: %s\n' "$me" "$1" >&2
    [ $# -lt 2 ] || printf '%s: -> %s\n' "$me" "$2" >&2
    exit 1
}
usage_error() {
    printf '%s: %s (see %s --help)\n' "$me" "$1" "$me" >&2
    exit 2
}
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; [ ${#1} -le 9 ]; }

parse() {
    [ $# -gt 0 ] || usage_error 'nothing to do'
    while [ $# -gt 0 ]; do
        case $1 in
            --pages | --size | --node | --mount | --bind | --driver | --unbind)
                [ $# -ge 2 ] || usage_error "$1 needs a value"
                option "$1" "$2"
                shift
                ;;
            --*=*) option "${1%%=*}" "${1#*=}" ;;
            --no-mount) do_mount=no ;;
            --noiommu) noiommu=1 ;;
            --force) force=1 ;;
            --persist) persist=yes ;;
            --unpersist) persist=remove ;;
            --status) ;;
            -h | --help)
                sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "$0"
                exit 0
                ;;
            *) usage_error "unknown option '$1'" ;;
        esac
        shift
    done
}

option() { # NAME VALUE
    case $1 in
        --pages) is_number "$2" || usage_error "--pages '$2' is not a number"; pages=$((10#$2)) ;;
        --node) is_number "$2" || usage_error "--node '$2' is not a number"; node=$((10#$2)) ;;
        --size)
            case ${2,,} in
                2m | 2mb | 2048k | 2048kb) size=2048 ;;
                1g | 1gb | 1048576k | 1048576kb) size=1048576 ;;
                *) usage_error "--size '$2' is neither 2M nor 1G" ;;
            esac
            ;;
        --mount)
            case $2 in /*) ;; *) usage_error "--mount '$2' is not an absolute path" ;; esac
            case $2 in *[[:space:]]*) usage_error "--mount '$2' contains blanks" ;; esac
            mount=$2 do_mount=yes
            ;;
        --driver)
            case $2 in '' | *[!A-Za-z0-9_-]*) usage_error "--driver '$2' is not a driver name" ;; esac
            driver=$2
            ;;
        --bind | --unbind)
            local list a
            IFS=, read -ra list <<<"$2"
            [ ${#list[@]} -gt 0 ] || usage_error "$1 needs a PCI address"
            for a in "${list[@]}"; do
                a=$(address "$a") || usage_error "'$a' is not a PCI address like 0000:03:00.0"
                if [ "$1" = --bind ]; then bind+=("$a"); else unbind+=("$a"); fi
            done
            ;;
        *) usage_error "unknown option '$1'" ;;
    esac
}

address() { # prints the full PCI address, or what was given and fails
    local a=${1,,}
    [[ $a =~ ^[0-9a-f]{1,2}:[0-9a-f]{2}\.[0-7]$ ]] && a=0000:$a
    printf %s "$a"
    [[ $a =~ ^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]]
}

need_root() {
    [ "$(id -u)" = 0 ] || refuse 'changing hugepages and drivers needs root' "run it with sudo: sudo $0 ..."
}

# ---- hugepages ---------------------------------------------------------------------------------

default_size() { sed -n 's/^Hugepagesize: *\([0-9]*\) kB$/\1/p' /proc/meminfo; }
human() { case $1 in 2048) echo 2M ;; 1048576) echo 1G ;; *) echo "${1}k" ;; esac; }

pool_dir() { # directory of the page pool of size and node
    if [ -n "$node" ]; then
        printf '%s/devices/system/node/node%s/hugepages/hugepages-%skB' "$sysfs" "$node" "$size"
    else
        printf '%s/kernel/mm/hugepages/hugepages-%skB' "$sysfs" "$size"
    fi
}

check_size() {
    [ -n "$size" ] || size=$(default_size)
    [ -n "$size" ] || refuse 'this kernel has no hugepages (no Hugepagesize in /proc/meminfo)' \
        'use a kernel with CONFIG_HUGETLBFS, or run DPDK with --no-huge in other_config:dpdk-extra (slow)'
    [ -z "$node" ] || [ -d "$sysfs/devices/system/node/node$node" ] ||
        refuse "there is no NUMA node $node" \
            "nodes here: $(cat "$sysfs/devices/system/node/online" 2>/dev/null || echo 'unknown')"
    [ -d "$(pool_dir)" ] || refuse "this machine has no hugepages of $(human "$size")" \
        "sizes here: $(for d in "$sysfs"/kernel/mm/hugepages/hugepages-*kB; do
            d=${d##*-}; human "${d%kB}"; done | tr '\n' ' ')(1G needs the CPU flag pdpe1gb)"
}

reserve() {
    local dir have free used got
    dir=$(pool_dir)
    have=$(cat "$dir/nr_hugepages") || refuse "cannot read $dir/nr_hugepages"
    local where="${node:+ on NUMA node $node}"
    if [ "$have" = "$pages" ]; then
        say "$pages hugepages of $(human "$size")$where are reserved already"
        return
    fi
    free=$(cat "$dir/free_hugepages")
    used=$((have - free))
    [ "$pages" -ge "$used" ] || refuse "$used hugepages of $(human "$size")$where are in use, more than $pages" \
        "stop the programs that use them, or ask for at least $used pages"
    set_pages "$dir"
    got=$(cat "$dir/nr_hugepages")
    if [ "$got" -lt "$pages" ]; then
        # Memory may only be fragmented: put it together and try once more.
        sync
        echo 3 2>/dev/null >/proc/sys/vm/drop_caches
        echo 1 2>/dev/null >/proc/sys/vm/compact_memory
        set_pages "$dir"
        got=$(cat "$dir/nr_hugepages")
    fi
    if [ "$got" -ne "$pages" ]; then
        local total
        total=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
        set_count "$dir" "$have"
        refuse "only $got of $pages hugepages of $(human "$size")$where could be reserved (left at $have)" \
            "the machine has $((total / 1024)) MiB in all, $pages pages are $((pages * (size / 1024))) MiB: ask for fewer, or reserve at boot with the kernel arguments hugepagesz=$(human "$size") hugepages=$pages"
    fi
    say "reserved $pages hugepages of $(human "$size")$where (before: $have)"
}
set_count() { echo "$2" 2>/dev/null >"$1/nr_hugepages"; }
set_pages() {
    set_count "$1" "$pages" || [ -w "$1/nr_hugepages" ] ||
        refuse "$1/nr_hugepages cannot be written" 'run it on the host, not in a container without that right'
}

mounted_at() { # first hugetlbfs mount of the page size
    local dir type opts want
    want=$(human "$size")
    while read -r _ dir type opts _; do
        [ "$type" = hugetlbfs ] || continue
        case ,$opts, in
            *,pagesize="$want",*) echo "$dir"; return 0 ;;
            *,pagesize=*) ;;
            *) [ "$size" != "$(default_size)" ] || { echo "$dir"; return 0; } ;;
        esac
    done </proc/mounts
    return 1
}

mount_hugetlbfs() {
    local at want
    at=$(mounted_at) || at=
    if [ -z "$mount" ]; then
        if [ -n "$at" ]; then
            mount=$at
        elif [ "$size" = "$(default_size)" ]; then
            mount=/dev/hugepages
        else
            mount=/dev/hugepages-$(human "$size")
        fi
    fi
    want=$(human "$size")
    if awk -v d="$mount" '$2 == d && $3 == "hugetlbfs"' /proc/mounts | grep -q .; then
        if ! awk -v d="$mount" -v p="pagesize=$want" '$2 == d && $3 == "hugetlbfs" && index($4, p)' /proc/mounts |
            grep -q .; then
            refuse "$mount holds hugepages of another size than $want" 'choose another directory with --mount'
        fi
        say "hugetlbfs is mounted on $mount already"
        return
    fi
    grep -qw hugetlbfs /proc/filesystems ||
        refuse 'this kernel has no hugetlbfs' 'use a kernel with CONFIG_HUGETLBFS'
    mkdir -p "$mount" || refuse "cannot make the directory $mount" 'choose another with --mount'
    mount -t hugetlbfs -o "pagesize=$want" hugetlbfs "$mount" ||
        refuse "cannot mount hugetlbfs on $mount" 'needs the right to mount (CAP_SYS_ADMIN)'
    say "mounted hugetlbfs ($want pages) on $mount"
}

# ---- NICs --------------------------------------------------------------------------------------

need_devbind() {
    command -v dpdk-devbind.py >/dev/null ||
        refuse 'dpdk-devbind.py is not installed' 'on Debian and Ubuntu: apt-get install dpdk'
    command -v ip >/dev/null || refuse 'ip is not installed' 'on Debian and Ubuntu: apt-get install iproute2'
}

device() { printf '%s/bus/pci/devices/%s' "$sysfs" "$1"; }
driver_of() {
    local l
    l=$(readlink "$(device "$1")/driver") && echo "${l##*/}"
}
interfaces_of() {
    local d
    for d in "$(device "$1")"/net/* "$(device "$1")"/virtio*/net/*; do
        [ -e "$d" ] && echo "${d##*/}"
    done
}

check_device() {
    [ -d "$(device "$1")" ] && return
    local nics d
    nics=$(for d in "$sysfs"/bus/pci/devices/*; do
        case $(cat "$d/class" 2>/dev/null) in 0x02*) echo "${d##*/}" ;; esac
    done | tr '\n' ' ')
    refuse "there is no PCI device $1" "network devices here: ${nics:-none}"
}

check_unused() {
    local i
    [ -z "$force" ] || return 0
    for i in $(interfaces_of "$1"); do
        if ip -o addr show dev "$i" scope global | grep -q .; then
            refuse "$1 is the interface $i, which has an address" \
                "take it away first (ip addr flush dev $i), or use --force"
        fi
    done
}

load_driver() {
    local d=${driver//-/_}
    if [ ! -d "$sysfs/module/$d" ] && [ ! -d "$sysfs/bus/pci/drivers/$driver" ]; then
        command -v modprobe >/dev/null || refuse 'modprobe is not installed' 'apt-get install kmod'
        modprobe "$driver" 2>/dev/null || refuse "the kernel $(uname -r) has no module $driver" \
            'install the kernel package that has it (Ubuntu: linux-modules-extra), or use a kernel with CONFIG_VFIO_PCI'
        say "loaded $driver"
    else
        say "$driver is loaded already"
    fi
}

prepare_vfio() {
    local unsafe=$sysfs/module/vfio/parameters/enable_unsafe_noiommu_mode
    if [ -n "$noiommu" ]; then
        [ -e "$unsafe" ] || refuse "this kernel's vfio has no mode without IOMMU" \
            'use a kernel with CONFIG_VFIO_NOIOMMU, or an IOMMU (see below), or --driver uio_pci_generic'
        if [ "$(cat "$unsafe")" != Y ]; then
            echo 1 >"$unsafe" || refuse "cannot write $unsafe"
            say 'vfio may be used without an IOMMU now (unsafe)'
        else
            say 'vfio may be used without an IOMMU already (unsafe)'
        fi
        return
    fi
    local a
    for a in "${bind[@]}"; do
        if [ ! -e "$(device "$a")/iommu_group" ] && [ "$(cat "$unsafe" 2>/dev/null)" != Y ]; then
            refuse "$a has no IOMMU group, so vfio-pci cannot protect memory from it" \
                'enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (Intel); or accept the risk with --noiommu'
        fi
    done
}

# Devices of one IOMMU group can only be used together.
check_group() {
    local g d other drv
    g=$(device "$1")/iommu_group/devices
    [ "$driver" = vfio-pci ] && [ -d "$g" ] || return 0
    for d in "$g"/*; do
        other=${d##*/}
        [ "$other" != "$1" ] || continue
        case " ${bind[*]} " in *" $other "*) continue ;; esac
        # Bridges stay with their driver.
        case $(cat "$d/class" 2>/dev/null) in 0x0604*) continue ;; esac
        drv=$(driver_of "$other") || continue
        [ "$drv" = vfio-pci ] || refuse "$1 shares its IOMMU group with $other, which $drv uses" \
            "bind both (--bind $1,$other), or put the card into another slot"
    done
}

bind_one() {
    local a=$1 i now
    now=$(driver_of "$a") || now=
    if [ "$now" = "$driver" ]; then
        say "$a is bound to $driver already"
        return
    fi
    for i in $(interfaces_of "$a"); do
        ip link set dev "$i" down
    done
    dpdk-devbind.py ${force:+--force} -b "$driver" "$a" >/dev/null || true
    now=$(driver_of "$a") || now=
    [ "$now" = "$driver" ] ||
        refuse "dpdk-devbind.py could not bind $a to $driver (driver now: ${now:-none})" 'see dmesg'
    say "bound $a to $driver"
}

unbind_one() {
    local a=$1 now
    now=$(driver_of "$a") || now=
    case $now in
        vfio-pci | uio_pci_generic | igb_uio) ;;
        '') ;;
        *) say "$a is with its kernel driver $now already"; return ;;
    esac
    if [ -n "$now" ]; then
        local user
        user=$(users_of "$a")
        [ -z "$user" ] || refuse "$a is in use by process $user" \
            'remove the port from the switch first (ovs-vsctl del-port) or stop the program'
        dpdk-devbind.py -u "$a" >/dev/null || true
    fi
    # Let the kernel choose again.
    [ ! -e "$(device "$a")/driver_override" ] || echo >"$(device "$a")/driver_override"
    if ! driver_of "$a" >/dev/null; then
        echo "$a" >"$sysfs/bus/pci/drivers_probe" || true
    fi
    now=$(driver_of "$a") || now=
    [ -n "$now" ] || refuse "no kernel driver takes $a back" \
        "load the NIC's driver (dpdk-devbind.py --status-dev net names it as 'unused=') and run $me --unbind $a again"
    say "gave $a back to $now"
}

# Processes that hold the device's vfio group open.
users_of() {
    local g f p
    g=$(readlink "$(device "$1")/iommu_group") || return 0
    g=${g##*/}
    for f in "/dev/vfio/$g" "/dev/vfio/noiommu-$g"; do
        [ -e "$f" ] || continue
        for p in /proc/[0-9]*; do
            if find "$p/fd" -lname "$f" 2>/dev/null | grep -q .; then
                echo "${p##*/} ($(cat "$p/comm" 2>/dev/null))"
                return 0
            fi
        done
    done
}

# ---- persistence -------------------------------------------------------------------------------

f_sysctl=$etc/sysctl.d/80-ovs-dpdk.conf
f_tmpfiles=$etc/tmpfiles.d/ovs-dpdk.conf
f_modules=$etc/modules-load.d/ovs-dpdk.conf
f_modprobe=$etc/modprobe.d/ovs-dpdk.conf
fstab=$etc/fstab
# An option of ours that mount(8) ignores, to find our line again.
mark=x-ovs-dpdk

write_file() { # FILE TEXT
    mkdir -p "${1%/*}" || refuse "cannot make the directory ${1%/*}"
    if [ "$(cat "$1" 2>/dev/null)" = "$2" ]; then
        say "$1 is up to date"
    else
        printf '%s\n' "$2" >"$1" || refuse "cannot write $1" 'is /etc read-only?'
        say "wrote $1"
    fi
}

persist_pages() {
    if [ -z "$node" ] && [ "$size" = "$(default_size)" ]; then
        write_file "$f_sysctl" "# Written by $me --persist.
vm.nr_hugepages = $pages"
        rm -f "$f_tmpfiles"
        return
    fi
    command -v systemd-tmpfiles >/dev/null ||
        refuse "keeping pages of one NUMA node or of a size that is not the default needs systemd-tmpfiles" \
            "boot with the kernel arguments hugepagesz=$(human "$size") hugepages=$pages instead"
    write_file "$f_tmpfiles" "# Written by $me --persist.
w $(pool_dir)/nr_hugepages - - - - $pages"
    rm -f "$f_sysctl"
}

persist_mount() {
    # systemd mounts the default size on /dev/hugepages by itself.
    if [ "$mount" = /dev/hugepages ] && [ "$size" = "$(default_size)" ] && [ -d /run/systemd/system ]; then
        say 'systemd mounts /dev/hugepages at every boot (dev-hugepages.mount)'
        return
    fi
    local line
    line="hugetlbfs $mount hugetlbfs pagesize=$(human "$size"),nofail,$mark 0 0"
    if grep -qxF "$line" "$fstab" 2>/dev/null; then
        say "$fstab has $mount already"
        return
    fi
    if awk -v d="$mount" '$1 !~ /^#/ && $2 == d' "$fstab" 2>/dev/null | grep -vF "$mark" | grep -q .; then
        say "$fstab has an entry of its own for $mount, left alone"
        return
    fi
    drop_fstab_entries
    printf '%s\n' "$line" >>"$fstab" || refuse "cannot write $fstab" 'is /etc read-only?'
    say "added $mount to $fstab"
}

drop_fstab_entries() {
    grep -qF "$mark" "$fstab" 2>/dev/null || return 1
    local rest
    rest=$(grep -vF "$mark" "$fstab")
    printf '%s\n' "$rest" >"$fstab" || refuse "cannot write $fstab" 'is /etc read-only?'
}

persist_modules() {
    write_file "$f_modules" "$driver"
    if [ -n "$noiommu" ]; then
        write_file "$f_modprobe" 'options vfio enable_unsafe_noiommu_mode=1'
    fi
    if command -v driverctl >/dev/null; then
        say "to bind at every boot too: driverctl set-override ADDR $driver, for ${bind[*]}"
    else
        say "the binding of ${bind[*]} lasts until reboot (driverctl, if installed, can keep it)"
    fi
}

unpersist() {
    local f none=1
    for f in "$f_sysctl" "$f_tmpfiles" "$f_modules" "$f_modprobe"; do
        [ -e "$f" ] || continue
        rm "$f" || refuse "cannot remove $f" 'is /etc read-only?'
        say "removed $f"
        none=
    done
    if drop_fstab_entries; then
        say "removed the entry in $fstab"
        none=
    fi
    [ -z "$none" ] || say 'nothing was persisted'
}

# ---- state -------------------------------------------------------------------------------------

print_status() {
    local d n s total free a drv net
    echo 'Hugepages:'
    for d in "$sysfs"/devices/system/node/node*/hugepages/hugepages-*kB "$sysfs"/kernel/mm/hugepages/hugepages-*kB; do
        [ -d "$d" ] || continue
        n=all
        case $d in */node/node*) n=${d#*/node/node}; n=${n%%/*} ;; esac
        s=${d##*-}
        total=$(cat "$d/nr_hugepages") free=$(cat "$d/free_hugepages")
        printf '  node %-3s %4s pages: %6s reserved, %6s free, %7s MiB\n' \
            "$n" "$(human "${s%kB}")" "$total" "$free" "$((total * (${s%kB} / 1024)))"
    done
    echo 'hugetlbfs:'
    awk '$3 == "hugetlbfs" { print "  " $2 " (" $4 ")"; n++ } END { if (!n) print "  not mounted" }' /proc/mounts
    echo 'vfio:'
    printf '  vfio-pci %s, IOMMU %s, unsafe mode without IOMMU: %s\n' \
        "$([ -d "$sysfs/bus/pci/drivers/vfio-pci" ] && echo loaded || echo 'not loaded')" \
        "$(compgen -G "$sysfs/class/iommu/*" >/dev/null && echo on || echo off)" \
        "$(cat "$sysfs/module/vfio/parameters/enable_unsafe_noiommu_mode" 2>/dev/null || echo 'not available')"
    echo 'Network devices:'
    n=0
    for d in "$sysfs"/bus/pci/devices/*; do
        case $(cat "$d/class" 2>/dev/null) in 0x02*) ;; *) continue ;; esac
        a=${d##*/} n=$((n + 1))
        drv=$(driver_of "$a") || drv=none
        net=$(interfaces_of "$a" | tr '\n' ' ')
        printf '  %s %s driver %s%s\n' "$a" "$(sed s/^0x// "$d/vendor"):$(sed s/^0x// "$d/device")" "$drv" \
            "${net:+, interface ${net% }}"
    done
    [ "$n" != 0 ] || echo '  none'
}

main() {
    parse "$@"
    if [ -n "$pages" ] || [ -n "$mount" ]; then
        need_root
        check_size
        [ -z "$pages" ] || reserve
        [ "$do_mount" = no ] || mount_hugetlbfs
    elif [ -n "$node$size" ]; then
        usage_error '--size and --node go with --pages or --mount'
    fi
    local a
    if [ ${#unbind[@]} -gt 0 ]; then
        need_root
        need_devbind
        for a in "${unbind[@]}"; do check_device "$a"; done
        for a in "${unbind[@]}"; do unbind_one "$a"; done
    fi
    if [ ${#bind[@]} -gt 0 ]; then
        need_root
        need_devbind
        for a in "${bind[@]}"; do
            check_device "$a"
            check_unused "$a"
        done
        load_driver
        [ "$driver" != vfio-pci ] || prepare_vfio
        for a in "${bind[@]}"; do check_group "$a"; done
        for a in "${bind[@]}"; do bind_one "$a"; done
    fi
    case $persist in
        yes)
            need_root
            [ -n "$pages$mount" ] || [ ${#bind[@]} -gt 0 ] || usage_error '--persist goes with --pages, --mount or --bind'
            [ -z "$pages" ] || persist_pages
            [ "$do_mount" = no ] || [ -z "$mount" ] || persist_mount
            [ ${#bind[@]} -eq 0 ] || persist_modules
            ;;
        remove) need_root; unpersist ;;
    esac
    print_status
}

main "$@"
