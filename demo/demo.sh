#!/bin/bash
# Ten seconds of replayed traffic through a switch with two DPDK virtual ports.
#
# A file of 1,000 UDP flows is replayed without end by one port (net_pcap) and
# sent to the other (net_null) by one rule; one PMD thread does everything.
# Printed: packets a second, cycles a packet, hits by cache level, the flows.
# Installs what is missing, keeps everything in a temporary directory and in a
# network namespace of its own, and leaves nothing behind.
#
# VSWITCHD=PROGRAM   measures another ovs-vswitchd with DPDK instead of ours
# SECONDS_RUN=N      measures N seconds instead of 10
# NO_HUGE=1          runs without hugepages though there are some
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_RUN:-10}
flows=1000
size=60
pages_wanted=512          # of 2 MiB
schema=/usr/share/openvswitch/vswitch.ovsschema
pages_file=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
free_file=/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages

say() { echo "demo: $*"; }
die() { echo "demo: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must run as root: hugepages and network namespaces need it"
if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi

# ---- leaving nothing behind ----------------------------------------------
work=; db_pid=; vs_pid=; pages_before=
stop() {                                # stop PID: asks, waits 10 s, insists
  kill "$1" 2>/dev/null || return 0
  for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
  kill -9 "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}
clean_up() {
  local status=$?
  trap - EXIT INT TERM
  if [ $status != 0 ] && [ -n "$work" ] && [ -s "$work/vs.log" ]; then
    echo "demo: failed; the last lines of the switch's log:" >&2
    tail -n 20 "$work/vs.log" >&2
  fi
  [ -z "$vs_pid" ] || stop "$vs_pid"
  [ -z "$db_pid" ] || stop "$db_pid"
  [ -z "$pages_before" ] || echo "$pages_before" >$pages_file
  [ -z "$work" ] || rm -rf "$work" "/var/run/dpdk/demo$$"
  exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- building -------------------------------------------------------------
.ci/deps
command -v cargo >/dev/null || die "cargo is missing; install Rust (https://rustup.rs)"
if [ -n "${VSWITCHD:-}" ]; then
  [ -x "$VSWITCHD" ] || die "VSWITCHD=$VSWITCHD is not a program"
  vswitchd=$(realpath "$VSWITCHD")
else
  say "building (the first time takes some minutes)"
  cargo build --release --locked --quiet --bin ovs-vswitchd
  vswitchd=$PWD/target/release/ovs-vswitchd
fi
cargo build --release --locked --quiet --example udp-pcap

work=$(mktemp -d /tmp/vswitch-demo.XXXXXX)
export OVS_RUNDIR=$work OVS_DBDIR=$work OVS_LOGDIR=$work OVS_SYSCONFDIR=$work
target/release/examples/udp-pcap "$work/traffic.pcap" $flows $size

# ---- hugepages ------------------------------------------------------------
# Reserves what is missing; fails when there are not enough. No mount is needed:
# the switch is told to keep its memory out of the file system.
hugepages() {
  [ -z "${NO_HUGE:-}" ] || return 1
  [ -w $pages_file ] || return 1
  local free total
  free=$(cat $free_file) total=$(cat $pages_file)
  if [ "$free" -lt $pages_wanted ]; then
    pages_before=$total
    # The kernel gives what it has; fewer pages than asked for are no error.
    { echo $((total + pages_wanted - free)) >$pages_file; } 2>/dev/null || true
    [ "$(cat $free_file)" -ge $pages_wanted ] || return 1
  fi
}
if hugepages; then
  say "memory: hugepages"
  memory="--in-memory"
else
  if [ -n "$pages_before" ]; then echo "$pages_before" >$pages_file; pages_before=; fi
  say "memory: ordinary pages (--no-huge), since hugepages are not available: expect less speed"
  memory="--no-huge --no-shconf -m 512"
fi

# ---- cores: housekeeping on the first we may use, the PMD on the last -------
cpus=$(sed -n 's/^Cpus_allowed_list:\s*//p' /proc/self/status)
first=${cpus%%[,-]*}
last=${cpus##*[,-]}
mask() { printf '0x%x' $((1 << $1)); }
say "cores: $first for the daemon, $last for the PMD thread"
[ "$first" != "$last" ] || say "only one core: the PMD thread shares it with everything else"

# ---- database and switch ----------------------------------------------------
vsctl() { ovs-vsctl --db="unix:$work/db.sock" --timeout=60 "$@"; }
appctl() { ovs-appctl -t "$work/vs.ctl" "$@"; }
ofctl() { ovs-ofctl -O OpenFlow13 "$@"; }
wait_for() {                            # wait_for PID COMMAND...
  local pid=$1
  shift
  for _ in $(seq 300); do
    if "$@"; then return 0; fi
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
dpdk_ready() { [ "$(vsctl --no-wait get Open_vSwitch . dpdk_initialized)" = true ]; }
forwarding() { [ "$(sent)" -gt 0 ]; }

ovsdb-tool create "$work/conf.db" $schema
ovsdb-server --remote="punix:$work/db.sock" --unixctl=none "$work/conf.db" 2>"$work/db.err" &
db_pid=$!
wait_for $db_pid test -S "$work/db.sock" || die "ovsdb-server does not start: $(cat "$work/db.err")"
vsctl --no-wait init -- set Open_vSwitch . \
  other_config:dpdk-init=true \
  other_config:dpdk-lcore-mask="$(mask "$first")" \
  other_config:pmd-cpu-mask="$(mask "$last")" \
  other_config:dpdk-extra="--no-pci --file-prefix=demo$$ $memory"

unshare -n "$vswitchd" "unix:$work/db.sock" --unixctl="$work/vs.ctl" \
  --log-file="$work/vs.log" >/dev/null 2>"$work/vs.err" &
vs_pid=$!
wait_for $vs_pid test -S "$work/vs.ctl" || die "$vswitchd does not start: $(tail -n 3 "$work/vs.err")"
wait_for $vs_pid dpdk_ready || die "$vswitchd does not start DPDK"

vsctl add-br br0 -- set bridge br0 datapath_type=netdev
ofctl del-flows br0
vsctl add-port br0 p1 -- set Interface p1 type=dpdk ofport_request=2 \
  options:dpdk-devargs=net_null0,no-rx=1
printf '%s\n' 'ip,nw_dst=11.0.0.0/8,actions=output:2' 'priority=1,actions=drop' >"$work/rules"
ofctl add-flows br0 "$work/rules"
vsctl add-port br0 p0 -- set Interface p0 type=dpdk ofport_request=1 \
  "options:dpdk-devargs=\"net_pcap0,rx_pcap=$work/traffic.pcap,infinite_rx=1\""
for p in p0 p1; do
  error=$(vsctl get Interface $p error)
  [ "$error" = "[]" ] || die "port $p: $error"
done

# ---- measuring ----------------------------------------------------------------
now() { date +%s%N; }
sent() { ofctl dump-ports br0 2 | sed -n 's/.*tx pkts=\([0-9]*\).*/\1/p'; }
wait_for $vs_pid forwarding || die "no packet arrives at port p1"
sleep 2
appctl dpif-netdev/pmd-stats-clear >/dev/null
a=$(sent) ta=$(now)
say "running $seconds s"
sleep "$seconds"
b=$(sent) tb=$(now)
stats=$(appctl dpif-netdev/pmd-stats-show)

echo
awk -v n=$((b - a)) -v ns=$((tb - ta)) \
  'BEGIN { printf "packets per second: %.0f (%.2f Mpps, %d flows of %d-byte packets)\n", n * 1e9 / ns, n * 1e3 / ns, '$flows', '$size' }'
echo "$stats" | sed -n 's/^ *avg processing cycles per packet: /cycles per packet:  /p' | head -n 1
echo
echo "hits by cache level (ovs-appctl dpif-netdev/pmd-stats-show):"
echo "$stats" | sed -n '/^pmd thread/,/^main thread/{/^main thread/!p}'
echo
echo "OpenFlow rules (ovs-ofctl dump-flows):"
ofctl dump-flows br0
echo
echo "datapath flows (ovs-appctl dpctl/dump-flows):"
appctl dpctl/dump-flows
echo
[ "$b" -gt "$a" ] || die "the traffic stopped"
say "done"
