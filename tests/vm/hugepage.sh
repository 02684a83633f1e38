#!/bin/bash
# In a guest with two extra NICs (0000:00:10.0 and 0000:00:11.0, joined by a wire): hugepage-setup.sh
# reserves pages, mounts hugetlbfs, binds both NICs to vfio-pci, says what it refuses and why, and
# gives the NICs back. Needs root, changes the machine it runs on: for throw-away guests only.
#
#   hugepage.sh [iommu|noiommu]      which way vfio-pci is to work (default: iommu)
#
# From the top directory, with a runner that boots a guest:
#   run.sh --share . --iommu --nics 2:virtio-net-pci -f tests/vm/hugepage.sh
#   run.sh --share . --noiommu --nics 2:virtio-net-pci -f tests/vm/hugepage.sh -- noiommu
#
# Prints one line for each check and exits 0 when all hold.
set -u
mode=${1:-iommu}
top=$(readlink -f "$(dirname "${VM_SCRIPT:-$0}")/../..")
nic0=0000:00:10.0 nic1=0000:00:11.0
failed=0 out=

ok() { echo "ok      $*"; }
bad() {
    echo "FAILED  $*"
    printf '%s\n' "$out" | sed 's/^/        | /'
    failed=1
}
run() { # WHAT EXPECTED-EXIT-CODE ARGUMENT...
    local what=$1 want=$2 rc
    shift 2
    out=$("$top/hugepage-setup.sh" "$@" 2>&1)
    rc=$?
    if [ $rc = "$want" ]; then ok "$what"; else bad "$what: exit code $rc instead of $want"; fi
}
says() { if grep -qF -- "$1" <<<"$out"; then ok "  says: $1"; else bad "  does not say: $1"; fi; }
is() { # WHAT EXPECTED ACTUAL
    if [ "$2" = "$3" ]; then ok "  $1: $3"; else bad "  $1: '$3' instead of '$2'"; fi
}
driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver" || echo none)"; }
pages() { cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages; }
kernel_driver=$(driver_of $nic0)

run 'reserving pages' 0 --pages 300
is 'pages' 300 "$(pages)"
run 'again' 0 --pages 300
says '300 hugepages of 2M are reserved already'
says 'hugetlbfs is mounted on'
run 'on a node' 0 --pages 310 --node 0 --size 2M
is 'pages' 310 "$(pages)"
run 'own mount point' 0 --pages 310 --mount /mnt/huge
is 'mounted' hugetlbfs "$(stat -f -c %T /mnt/huge)"
run 'no such node' 1 --pages 10 --node 77
says 'there is no NUMA node 77'
says 'nodes here: 0'
run 'too many pages' 1 --pages 900000
says '-> the machine has'
is 'pages stay' 310 "$(pages)"
run 'bad page size' 2 --pages 1 --size 3M
run 'no such device' 1 --bind 0000:00:1f.7
says $nic0

run 'keeping it' 0 --pages 310 --mount /mnt/huge --persist
is 'sysctl' 'vm.nr_hugepages = 310' "$(tail -1 /etc/sysctl.d/80-ovs-dpdk.conf)"
is 'fstab entries' 1 "$(grep -c ' /mnt/huge hugetlbfs pagesize=2M' /etc/fstab)"
run 'keeping it twice' 0 --pages 310 --mount /mnt/huge --persist
is 'fstab entries' 1 "$(grep -c ' /mnt/huge hugetlbfs pagesize=2M' /etc/fstab)"
umount /mnt/huge && mount /mnt/huge
is 'mounted from fstab' hugetlbfs "$(stat -f -c %T /mnt/huge)"
run 'forgetting it' 0 --unpersist
is 'fstab entries' 0 "$(grep -c /mnt/huge /etc/fstab)"
is 'sysctl file' no "$([ -e /etc/sysctl.d/80-ovs-dpdk.conf ] && echo yes || echo no)"

interface=
for d in /sys/bus/pci/devices/"$nic0"/net/* /sys/bus/pci/devices/"$nic0"/virtio*/net/*; do
    [ -e "$d" ] && interface=${d##*/}
done
ip addr add 192.0.2.1/24 dev "$interface"
arg=()
[ "$mode" = iommu ] || arg=(--noiommu)
run 'binding an interface with an address' 1 --bind $nic0 "${arg[@]}"
says "ip addr flush dev $interface"
ip addr flush dev "$interface"
if [ "$mode" = noiommu ]; then
    modprobe vfio
    echo 0 >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
    run 'binding without IOMMU' 1 --bind $nic0
    says 'has no IOMMU group'
    says '--noiommu'
fi
run 'binding two NICs' 0 --bind $nic0,$nic1 "${arg[@]}"
[ "$mode" = iommu ] || says 'vfio may be used without an IOMMU now (unsafe)'
is 'driver' vfio-pci "$(driver_of $nic0)"
is 'driver' vfio-pci "$(driver_of $nic1)"
says "$nic1"
run 'binding them again' 0 --bind 00:10.0 --bind 00:11.0 "${arg[@]}"
says "$nic0 is bound to vfio-pci already"
run 'giving them back' 0 --unbind $nic0 --unbind $nic1
is 'driver' "$kernel_driver" "$(driver_of $nic0)"
is 'driver' "$kernel_driver" "$(driver_of $nic1)"
run 'giving them back again' 0 --unbind $nic0
says 'already'
if command -v setpriv >/dev/null; then
    out=$(setpriv --reuid 65534 --clear-groups "$top/hugepage-setup.sh" --pages 10 2>&1)
    says 'needs root'
fi
exit $failed
