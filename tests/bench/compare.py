#!/usr/bin/env python3
"""Measure vswitchd programs side by side on identical, self-generated DPDK traffic.

Every switch under test is started on its own ovsdb-server, is given one PMD
thread on core 1, receives packets from an in-memory pcap that net_pcap replays
without end, and sends them to net_null.  No second core generates traffic, so
the figure is what one PMD thread can do.  Runs alternate between the switches
(A B A B ...), and what is compared is the ratio within a round.

  compare.py --switch ovs=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk \
             --switch ours=target/release/ovs-vswitchd  [--scenario NAME ...]

Needs: openvswitch-switch-dpdk, dpdk (Debian), 2 MiB hugepages (2048 of them),
a hugetlbfs mount, root.  Counters are read over OpenFlow with ovs-ofctl, so no
switch is asked how fast it is.
"""
import argparse, json, os, pathlib, random, re, shutil, signal, statistics, struct, subprocess, sys, tempfile, time

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


# ---------------------------------------------------------------- traffic
def udp(i, size=60, vlan=None, l4=17):
    smac, dmac = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    sip, dip = 0x0A000000 + (i % 65536), 0x0B000000 + (i // 65536) * 256 + i % 251
    sp, dp = 1024 + i % 60000, 2048 + i % 20
    hdr = 14 + 20 + (20 if l4 == 6 else 8)
    pay = b"\0" * (size - hdr)
    if l4 == 6:
        l4b = struct.pack("!HHIIBBHHH", sp, dp, i, 0, 0x50, 0x02, 8192, 0, 0) + pay
    else:
        l4b = struct.pack("!HHHH", sp, dp, 8 + len(pay), 0) + pay
    iph = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(l4b), 0, 0, 64, l4, 0,
                      struct.pack("!I", sip), struct.pack("!I", dip))
    s = sum(struct.unpack("!10H", iph))
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    iph = iph[:10] + struct.pack("!H", ~s & 0xFFFF) + iph[12:]
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return dmac + smac + tag + b"\x08\x00" + iph + l4b


def pcap(path, n, **kw):
    if path.exists():
        return
    pk = [udp(i, **kw) for i in range(n)]
    random.Random(7).shuffle(pk)
    if n < 512:
        pk *= 512 // n
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for i, p in enumerate(pk):
            f.write(struct.pack("<IIII", 0, i, len(p), len(p)) + p)


# ---------------------------------------------------------------- scenarios
def many_masks(k):
    """k rules, each with its own nw_src prefix x tp_dst shape: k megaflow masks."""
    out = []
    for m in range(k):
        out.append(f"priority={100 + m},udp,tp_dst={2048 + m},nw_dst=11.0.0.0/{9 + m % 16},actions=output:p1")
    out.append("priority=1,actions=output:p1")
    return out


L3 = ["ip,nw_dst=11.0.0.0/8,actions=output:p1", "priority=1,actions=drop"]
HASH = ["actions=multipath(symmetric_l4,1024,modulo_n,1,0,NXM_NX_REG0[0..12]),output:p1"]

SCENARIOS = {
    # name: (flows in the traffic, packet size, OpenFlow rules)
    "port-1": (1, 60, ["in_port=p0,actions=output:p1"]),              # one flow, in_port only
    "port-100k": (100000, 60, ["in_port=p0,actions=output:p1"]),
    "l3-1": (1, 60, L3),
    "l3-1k": (1000, 60, L3),                                           # fits a microflow cache
    "l3-10k": (10000, 60, L3),                                         # just does not
    "l3-100k": (100000, 60, L3),                                       # one megaflow mask
    "masks20-100k": (100000, 60, many_masks(20)),                      # some twenty masks
    "imix1400-1k": (1000, 1400, L3),
    "normal-1k": (1000, 60, ["actions=NORMAL"]),
    "rewrite-1k": (1000, 60, ["in_port=p0,ip,actions=mod_dl_src:02:00:00:00:00:0a,mod_nw_dst:10.9.9.9,dec_ttl,push_vlan:0x8100,set_field:4196->vlan_vid,output:p1"]),
    "tables8-1k": (1000, 60, [f"table={t},ip,nw_proto=17,actions=set_field:{t}->reg{t},goto_table:{t + 1}" for t in range(8)] + ["table=8,ip,nw_dst=11.0.0.0/8,actions=output:p1"]),
    "perflow-100k": (100000, 60, HASH),                                # 100,000 megaflows of one mask
}
SETUP = {"flow-setup": "perflow-100k"}


class Switch:
    def __init__(self, name, path, work, tune=()):
        self.name, self.path, self.work, self.tune = name, path, work, tune

    def sh(self, *a, check=True, timeout=30):
        r = subprocess.run(a, capture_output=True, text=True, env=self.env, timeout=timeout)
        if check and r.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(a)}: {r.stderr.strip() or r.stdout.strip()}")
        return r.stdout

    def vsctl(self, *a, **kw):
        return self.sh("ovs-vsctl", f"--db=unix:{self.run}/db.sock", "--timeout=20", *a, **kw)

    def appctl(self, *a, **kw):
        return self.sh("ovs-appctl", "-t", str(next(self.run.glob("*.ctl"))), *a, **kw)

    def start(self, cfg):
        self.run = pathlib.Path(tempfile.mkdtemp(prefix=f"sw-{self.name}-", dir=self.work))
        d = str(self.run)
        self.env = dict(os.environ, OVS_RUNDIR=d, OVS_DBDIR=d, OVS_LOGDIR=d, OVS_SYSCONFDIR=d)
        self.sh("ovsdb-tool", "create", f"{d}/conf.db", SCHEMA)
        self.db = subprocess.Popen(["ovsdb-server", f"--remote=punix:{d}/db.sock", "--unixctl=none", f"{d}/conf.db"],
                                   env=self.env, stdout=subprocess.DEVNULL, stderr=open(f"{d}/db.err", "w"))
        for _ in range(100):
            if os.path.exists(f"{d}/db.sock"):
                break
            time.sleep(0.05)
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".",
                   "other_config:dpdk-init=true", "other_config:pmd-cpu-mask=0x2",
                   "other_config:dpdk-lcore-mask=0x1",
                   f"other_config:dpdk-extra=--no-pci --file-prefix=b{os.getpid()}{self.name}", *cfg)
        # a network namespace of its own: the tap devices of two switches never meet
        self.vs = subprocess.Popen(["unshare", "-n", self.path, f"unix:{d}/db.sock", f"--unixctl={d}/vs.ctl", f"--log-file={d}/vs.log"],
                                   env=self.env, stdout=subprocess.DEVNULL, stderr=open(f"{d}/vs.err", "w"))

    def bridge(self, pc, rules):
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        self.sh("ovs-ofctl", "-O", "OpenFlow13", "del-flows", "br0")
        self.vsctl("add-port", "br0", "p1", "--", "set", "Interface", "p1", "type=dpdk", "ofport_request=2",
                   "options:dpdk-devargs=net_null0,no-rx=1")
        f = self.run / "rules"
        f.write_text("\n".join(rules).replace("in_port=p0", "in_port=1").replace("output:p1", "output:2") + "\n")
        self.sh("ovs-ofctl", "-O", "OpenFlow13", "add-flows", "br0", str(f))
        if any("NORMAL" in r for r in rules):
            self.appctl("fdb/add", "br0", "p1", "0", "02:00:00:00:00:02")
        # the adaptive flow limit starts low and grows by time: lift it, it is not what is measured
        self.appctl("upcall/set-flow-limit", "250000")
        for t in self.tune:
            self.appctl(*t.split())
        self.t_add = time.monotonic()
        self.vsctl("add-port", "br0", "p0", "--", "set", "Interface", "p0", "type=dpdk", "ofport_request=1",
                   f"options:dpdk-devargs=net_pcap0,rx_pcap={pc},infinite_rx=1")

    def tx(self):
        out = self.sh("ovs-ofctl", "-O", "OpenFlow13", "dump-ports", "br0", "2")
        return int(re.search(r"tx pkts=(\d+)", out)[1]), time.monotonic()

    def flows(self):
        m = re.search(r"flows: (\d+)", self.appctl("dpctl/show"))
        return int(m[1])

    def stop(self):
        for p in (self.vs, self.db):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill(); p.wait()
        if os.environ.get("KEEP") is None:
            shutil.rmtree(self.run, ignore_errors=True)


def throughput(sw, pc, rules, seconds, cfg):
    sw.start(cfg)
    try:
        sw.bridge(pc, rules)
        time.sleep(3)
        a, ta = sw.tx()
        time.sleep(seconds)
        b, tb = sw.tx()
        return (b - a) / (tb - ta) / 1e6
    finally:
        sw.stop()


def flow_setup(sw, pc, rules, n, cfg):
    """Thousand megaflows installed a second, from the first 10 % to 90 % of n."""
    sw.start(cfg)
    try:
        sw.bridge(pc, rules)
        first = last = None
        t_end = time.monotonic() + 60
        while time.monotonic() < t_end:
            f, t = sw.flows(), time.monotonic()
            if first is None and f >= n * 0.02:
                first = (f, t)
            last = (f, t)
            if f >= n * 0.9:
                break
        if first is None or last[1] == first[1]:
            return n / (last[1] - sw.t_add) / 1e3
        return (last[0] - first[0]) / (last[1] - first[1]) / 1e3
    finally:
        sw.stop()


def testpmd(pc, seconds, prefix):
    cmd = ["dpdk-testpmd", "-l", "0,1", "--no-pci", "--in-memory", f"--file-prefix={prefix}",
           "--vdev", f"net_pcap0,rx_pcap={pc},infinite_rx=1", "--vdev", "net_null0,no-rx=1", "--",
           "--forward-mode=io", "--stats-period", "1", "--total-num-mbufs=262144"]
    p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    time.sleep(seconds + 4)
    p.send_signal(signal.SIGINT)
    try:
        out, _ = p.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        p.kill(); out, _ = p.communicate()
    r = [int(x) for x in re.findall(r"Tx-pps:\s+(\d+)", out)]
    r = [x for x in r if x][1:]
    return statistics.median(r) / 1e6 if r else float("nan")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--switch", action="append", required=True, metavar="NAME=PATH")
    ap.add_argument("--scenario", action="append", choices=[*SCENARIOS, *SETUP])
    ap.add_argument("--seconds", type=float, default=4)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--set", action="append", default=[], metavar="COLUMN:KEY=VALUE", help="extra Open_vSwitch settings")
    ap.add_argument("--tune", action="append", default=[], metavar="NAME=COMMAND", help="an ovs-appctl command for that switch, before traffic")
    ap.add_argument("--limit", action="store_true", help="also measure testpmd in io mode")
    ap.add_argument("--json")
    o = ap.parse_args()
    work = pathlib.Path(tempfile.gettempdir()) / "vswitch-bench"
    work.mkdir(exist_ok=True)
    tunes = [t.split("=", 1) for t in o.tune]
    sws = [Switch(*s.split("=", 1), work, [c for n, c in tunes if n == s.split("=", 1)[0]]) for s in o.switch]
    result = {}
    print("| scenario | " + " | ".join(f"{s.name} Mpps" for s in sws) + (" | testpmd io" if o.limit else "") +
          "".join(f" | {s.name}/{sws[0].name}" for s in sws[1:]) + " |")
    print("|" + "---|" * (1 + len(sws) + bool(o.limit) + len(sws) - 1))
    for name in o.scenario or [*SCENARIOS, *SETUP]:
        n, size, rules = SCENARIOS[SETUP.get(name, name)]
        pc = work / f"udp-{n}-{size}.pcap"
        pcap(pc, n, size=size)
        runs = {s.name: [] for s in sws}
        for _ in range(o.rounds):
            for s in sws:
                try:
                    v = flow_setup(s, pc, rules, n, o.set) if name in SETUP else throughput(s, pc, rules, o.seconds, o.set)
                except Exception as e:
                    print(f"# {name}: {s.name}: {e}", file=sys.stderr)
                    v = float("nan")
                runs[s.name].append(v)
        lim = testpmd(pc, o.seconds, f"tp{os.getpid()}") if o.limit and name not in SETUP else float("nan")
        med = {k: statistics.median(v) for k, v in runs.items()}
        ratios = [statistics.median([b / a for a, b in zip(runs[sws[0].name], runs[s.name])]) for s in sws[1:]]
        unit = " k flows/s" if name in SETUP else ""
        print(f"| {name} | " + " | ".join(f"{med[s.name]:.2f}{unit}" for s in sws) + (f" | {lim:.1f}" if o.limit else "") +
              "".join(f" | {r:.2f}" for r in ratios) + " |", flush=True)
        result[name] = dict(runs=runs, limit=lim, ratios=ratios)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
