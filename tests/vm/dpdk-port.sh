#!/bin/bash
# In a guest with two extra NICs (0000:00:10.0 and 0000:00:11.0, joined by a wire): hugepage-setup.sh
# binds both to vfio-pci and gives the second one back; the first becomes a port of type=dpdk of a
# bridge, and a network namespace behind the second pings the bridge through it. Everything is given
# back at the end. Needs root, changes the machine it runs on: for throw-away guests only.
#
#   dpdk-port.sh [iommu|noiommu [DAEMON]]     (default: iommu target/release/ovs-vswitchd)
#
# From the top directory, with a runner that boots a guest:
#   run.sh --share . --iommu --nics 2:virtio-net-pci -f tests/vm/dpdk-port.sh
#   run.sh --share . --noiommu --nics 2:virtio-net-pci -f tests/vm/dpdk-port.sh -- noiommu
set -u
mode=${1:-iommu}
top=$(readlink -f "$(dirname "${VM_SCRIPT:-$0}")/../..")
daemon=${2:-$top/target/release/ovs-vswitchd}
nic0=0000:00:10.0 nic1=0000:00:11.0
dir=$(mktemp -d)
export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
db=unix:$dir/db.sock
vsctl() { ovs-vsctl --timeout=60 --db="$db" "$@"; }
t() { printf '[%s s] %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }
fail() {
    t "FAILED: $*"
    tail -n 60 "$dir/vswitchd.log"
    exit 1
}
wait_for() { # WHAT COMMAND...
    local what=$1 i
    shift
    for i in $(seq 150); do
        "$@" && return
        sleep 0.2
    done
    : "$i"
    fail "$what did not happen in 30 s"
}
link_is_up() { [ "$(vsctl get Interface p0 link_state)" = up ]; }
carrier() { [ "$(ip netns exec ns1 cat /sys/class/net/eth1/carrier 2>/dev/null)" = 1 ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }

arg=()
[ "$mode" = iommu ] || arg=(--noiommu)
[ -x "$daemon" ] || fail "there is no daemon at $daemon: build it first"
"$top/hugepage-setup.sh" --pages 512 --bind $nic0,$nic1 "${arg[@]}" || fail 'hugepage-setup.sh --bind'
"$top/hugepage-setup.sh" --unbind $nic1 >/dev/null || fail 'hugepage-setup.sh --unbind'
modprobe tun

# The name of the second NIC's interface is the kernel's choice.
peer=
for d in /sys/bus/pci/devices/"$nic1"/net/* /sys/bus/pci/devices/"$nic1"/virtio*/net/*; do
    [ -e "$d" ] && peer=${d##*/}
done
[ -n "$peer" ] || fail "$nic1 has no interface again"
ip netns add ns1
ip link set "$peer" netns ns1 name eth1
ip -n ns1 addr add 10.0.0.1/24 dev eth1
ip -n ns1 link set eth1 up

ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server --remote=punix:"$dir/db.sock" --pidfile="$dir/db.pid" --detach --log-file="$dir/db.log" \
    -vconsole:off "$dir/conf.db" || fail 'ovsdb-server'
vsctl --no-wait init
vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-socket-mem=512 \
    other_config:dpdk-lcore-mask=1 other_config:pmd-cpu-mask=2 other_config:dpdk-extra="-a $nic0"
"$daemon" "$db" --pidfile="$dir/vs.pid" --detach --log-file="$dir/vswitchd.log" --unixctl="$dir/vs.ctl" \
    -vconsole:off || fail 'the daemon does not start'
t "dpdk_initialized $(vsctl get Open_vSwitch . dpdk_initialized), $(vsctl get Open_vSwitch . dpdk_version)"

vsctl add-br br0 -- set Bridge br0 datapath_type=netdev || fail 'add-br'
vsctl add-port br0 p0 -- set Interface p0 type=dpdk options:dpdk-devargs=$nic0 || fail 'add-port'
ip addr add 10.0.0.2/24 dev br0
ip link set br0 up
t "error=$(vsctl get Interface p0 error) $(vsctl get Interface p0 status)"
[ "$(vsctl get Interface p0 error)" = '[]' ] || fail 'the port has an error'
wait_for 'link up' link_is_up
wait_for 'carrier' carrier
ip netns exec ns1 ping -c 10 -i 0.2 -W 5 10.0.0.2 || fail 'ping'
vsctl get Interface p0 statistics
ovs-appctl --timeout=10 -t "$dir/vs.ctl" dpif/show
ovs-appctl --timeout=10 -t "$dir/vs.ctl" dpif-netdev/pmd-rxq-show

"$top/hugepage-setup.sh" --unbind $nic0 >"$dir/refused" 2>&1 && fail 'a NIC in use was unbound'
t "refused while in use: $(head -1 "$dir/refused")"
vsctl del-port p0 || fail 'del-port'
pid=$(cat "$dir/vs.pid")
ovs-appctl --timeout=20 -t "$dir/vs.ctl" exit
wait_for 'end of the daemon' gone "$pid"
kill "$(cat "$dir/db.pid")"
"$top/hugepage-setup.sh" --unbind $nic0,$nic1 || fail 'hugepage-setup.sh --unbind at the end'
t 'all passed'
