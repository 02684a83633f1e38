//! Database rows as typed wanted state. The last place where configuration is text.
//!
//! What cannot be used is left out with a warning that names row, column and value; the rest stays.
//! Neighbours: `manager` makes it so. Threads: main only.

use flow::OfPort;
use ofproto::snapshot::{PriorityTags, VlanMode, VlanSet};
use ofproto::VersionSet;
use ovsdb::{Replica, RowRef, Uuid};
use std::collections::{BTreeMap, BTreeSet};

static LOG: infra::vlog::Module = infra::vlog::Module::new("bridge");

/// One Interface row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedInterface {
    /// Row.
    pub row: Uuid,
    /// Name.
    pub name: String,
    /// Type, "system" where the row has none, "internal" for a bridge's local port.
    pub kind: String,
    /// What the device reads.
    pub config: netdev::Config,
    /// `ofport_request`.
    pub ofport_request: Option<OfPort>,
    /// `ofport`: the number it had before.
    pub ofport_hint: Option<OfPort>,
    /// `mac`.
    pub mac: Option<[u8; 6]>,
}

/// One Port row.
#[derive(Clone, Debug)]
pub struct WantedPort {
    /// Name.
    pub name: String,
    /// Its interfaces; more than one make a bond.
    pub interfaces: Vec<WantedInterface>,
    /// VLAN mode in effect.
    pub vlan_mode: VlanMode,
    /// `tag`.
    pub tag: Option<u16>,
    /// `trunks`.
    pub trunks: Option<VlanSet>,
    /// `other_config:priority-tags`.
    pub priority_tags: PriorityTags,
    /// `protected`.
    pub protected: bool,
}

impl WantedPort {
    /// Whether both carry the same VLANs in the same way.
    pub fn same_vlans(&self, other: &WantedPort) -> bool {
        (self.vlan_mode, self.tag, &self.trunks) == (other.vlan_mode, other.tag, &other.trunks)
    }
}

/// One Controller row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedController {
    /// Row.
    pub row: Uuid,
    /// `tcp:HOST[:PORT]` and the like.
    pub target: String,
    /// In charge of the tables, so that `fail_mode` counts; others come to look only.
    pub primary: bool,
    /// Longest wait between two attempts to connect, ms.
    pub max_backoff_ms: i64,
    /// Silence before a probe, ms; 0 never.
    pub probe_ms: i64,
    /// `other_config:dscp`.
    pub dscp: Option<u8>,
}

impl WantedController {
    /// `primary` or `service`.
    pub fn kind(&self) -> &'static str {
        if self.primary {
            "primary"
        } else {
            "service"
        }
    }
}

/// The SSL row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSsl {
    /// `private_key`.
    pub private_key: String,
    /// `certificate`.
    pub certificate: String,
    /// `ca_cert`.
    pub ca_cert: String,
    /// `bootstrap_ca_cert`.
    pub bootstrap: bool,
}

/// One Bridge row.
#[derive(Clone, Debug)]
pub struct WantedBridge {
    /// Row.
    pub row: Uuid,
    /// Name.
    pub name: String,
    /// `datapath_type`, "system" where the row has none.
    pub datapath_type: String,
    /// `fail_mode=secure`.
    pub secure: bool,
    /// Controllers, each target once.
    pub controllers: Vec<WantedController>,
    /// `protocols`.
    pub protocols: VersionSet,
    /// `other_config:datapath-id`.
    pub datapath_id: Option<u64>,
    /// `other_config:hwaddr`.
    pub hwaddr: Option<[u8; 6]>,
    /// `other_config:mac-aging-time`, seconds.
    pub mac_aging_secs: u32,
    /// `other_config:mac-table-size`.
    pub mac_table_size: usize,
    /// `flood_vlans`.
    pub flood_vlans: Option<VlanSet>,
    /// `other_config:forward-bpdu`.
    pub forward_bpdu: bool,
    /// `other_config:dp-desc`.
    pub dp_desc: Option<String>,
    /// `other_config:dp-sn`.
    pub dp_sn: Option<String>,
    /// Ports.
    pub ports: Vec<WantedPort>,
}

impl WantedBridge {
    /// Whether a controller is in charge of the tables.
    pub fn has_primary(&self) -> bool {
        self.controllers.iter().any(|c| c.primary)
    }

    /// Whether the bridge is a learning switch until somebody programs it.
    pub fn is_standalone(&self) -> bool {
        !self.secure && !self.has_primary()
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `next_cfg`: what `cur_cfg` becomes when all this is in effect.
    pub next_cfg: i64,
    /// `other_config` of the Open_vSwitch row.
    pub other_config: BTreeMap<String, String>,
    /// Bridges by name.
    pub bridges: BTreeMap<String, WantedBridge>,
    /// Keys and certificates.
    pub ssl: Option<WantedSsl>,
    /// Interfaces that more than one port claims, and who has them.
    pub rejected: Vec<(Uuid, String)>,
}

/// `xx:xx:xx:xx:xx:xx`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for b in &mut mac {
        let p = parts.next()?;
        if p.is_empty() || p.len() > 2 {
            return None;
        }
        *b = u8::from_str_radix(p, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Hexadecimal datapath id: 1 to 16 digits with or without 0x, not zero.
pub fn parse_datapath_id(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().filter(|&d| d != 0)
}

fn text_map(row: &RowRef<'_>, column: &str) -> BTreeMap<String, String> {
    row.map(column).map(|(k, v)| (k.into(), v.into())).collect()
}

fn vlan_ids(row: &RowRef<'_>, column: &str) -> Vec<u16> {
    row.ints(column).filter_map(|v| u16::try_from(v).ok()).collect()
}

impl Wanted {
    /// Reads everything. `None` when there is no Open_vSwitch row.
    ///
    /// An interface that ports of several bridges claim stays in the bridge that has it, as `held` tells by
    /// interface; else the first gets it.
    pub fn read(replica: &Replica, held: &BTreeMap<String, String>) -> Option<Wanted> {
        let root = replica.only_row("Open_vSwitch")?;
        let mut w = Wanted {
            next_cfg: root.int("next_cfg"),
            other_config: text_map(&root, "other_config"),
            ssl: replica.follow(&root, "ssl", "SSL").next().map(|r| read_ssl(&r)),
            ..Wanted::default()
        };
        let mut claims = Claims { owners: owners(replica, &root, held), ..Claims::default() };
        for row in replica.follow(&root, "bridges", "Bridge") {
            let name = row.str("name");
            if w.bridges.contains_key(name) {
                infra::vlog!(LOG, Warn, "bridge {name} specified twice");
                continue;
            }
            if name.contains('/') || name.is_empty() {
                infra::vlog!(
                    LOG,
                    Warn,
                    "ignoring bridge with invalid name \"{name}\": a name must not be empty nor contain \"/\""
                );
                continue;
            }
            let b = read_bridge(replica, &row, &mut claims);
            w.bridges.insert(name.into(), b);
        }
        w.rejected = claims.rejected;
        Some(w)
    }
}

/// Who gets which interface.
#[derive(Default)]
struct Claims {
    /// The bridge that an interface is for.
    owners: BTreeMap<String, String>,
    /// Interfaces that a port has.
    taken: BTreeSet<String>,
    rejected: Vec<(Uuid, String)>,
}

fn owners(replica: &Replica, root: &RowRef<'_>, held: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for bridge in replica.follow(root, "bridges", "Bridge") {
        for port in replica.follow(&bridge, "ports", "Port") {
            for i in replica.follow(&port, "interfaces", "Interface") {
                let (name, bridge) = (i.str("name"), bridge.str("name"));
                if held.get(name).is_some_and(|b| b == bridge) || !owners.contains_key(name) {
                    owners.insert(name.to_string(), bridge.to_string());
                }
            }
        }
    }
    owners
}

fn read_bridge(replica: &Replica, row: &RowRef<'_>, claims: &mut Claims) -> WantedBridge {
    let name = row.str("name").to_string();
    let checked = |key: &str, v: Option<&str>, ok: bool| {
        if let (Some(v), false) = (v, ok) {
            infra::vlog!(LOG, Warn, "bridge {name}: ignoring other_config:{key}={v}, which is not valid");
        }
    };
    let dpid_text = row.map_get("other_config", "datapath-id");
    let datapath_id = dpid_text.and_then(parse_datapath_id);
    checked("datapath-id", dpid_text, datapath_id.is_some());
    let hw_text = row.map_get("other_config", "hwaddr");
    let hwaddr = hw_text.and_then(parse_mac).filter(|m| m[0] & 1 == 0 && *m != [0; 6]);
    checked("hwaddr", hw_text, hwaddr.is_some());
    let names: BTreeSet<&str> = row.strs("protocols").collect();
    let floods = vlan_ids(row, "flood_vlans");
    let ports = replica.follow(row, "ports", "Port").filter_map(|p| read_port(replica, &p, &name, claims));
    WantedBridge {
        row: row.uuid(),
        datapath_type: Some(row.str("datapath_type")).filter(|t| !t.is_empty()).unwrap_or("system").into(),
        secure: row.str_opt("fail_mode") == Some("secure"),
        controllers: read_controllers(replica, row),
        protocols: VersionSet::from_names(names),
        datapath_id,
        hwaddr,
        mac_aging_secs: u32::try_from(row.map_int("other_config", "mac-aging-time", 300)).unwrap_or(300),
        mac_table_size: usize::try_from(row.map_int("other_config", "mac-table-size", 8192)).unwrap_or(8192),
        flood_vlans: (!floods.is_empty()).then(|| VlanSet::new(floods)),
        forward_bpdu: row.map_bool("other_config", "forward-bpdu", false),
        dp_desc: row.map_get("other_config", "dp-desc").map(Into::into),
        dp_sn: row.map_get("other_config", "dp-sn").map(Into::into),
        ports: ports.collect(),
        name: name.clone(),
    }
}

fn read_ssl(row: &RowRef<'_>) -> WantedSsl {
    WantedSsl {
        private_key: row.str("private_key").into(),
        certificate: row.str("certificate").into(),
        ca_cert: row.str("ca_cert").into(),
        bootstrap: row.bool("bootstrap_ca_cert"),
    }
}

fn read_controllers(replica: &Replica, bridge: &RowRef<'_>) -> Vec<WantedController> {
    let mut all: Vec<WantedController> = Vec::new();
    for row in replica.follow(bridge, "controller", "Controller") {
        let target = row.str("target");
        if all.iter().any(|c| c.target == target) {
            infra::vlog!(LOG, Warn, "bridge {}: controller {target} specified twice", bridge.str("name"));
            continue;
        }
        let method = target.split(':').next().unwrap_or_default();
        let active = !matches!(method, "ptcp" | "pssl" | "punix");
        let dscp = row.map_get("other_config", "dscp");
        all.push(WantedController {
            row: row.uuid(),
            target: target.into(),
            primary: row.str_opt("type").map_or(active, |t| t == "primary"),
            max_backoff_ms: row.int_opt("max_backoff").filter(|ms| *ms >= 1000).unwrap_or(8000),
            probe_ms: row.int_opt("inactivity_probe").filter(|ms| *ms >= 0).unwrap_or(5000),
            dscp: dscp.and_then(|d| d.parse().ok()).filter(|d| *d < 64),
        });
    }
    all
}

fn read_port(replica: &Replica, row: &RowRef<'_>, bridge: &str, claims: &mut Claims) -> Option<WantedPort> {
    let name = row.str("name").to_string();
    let mut interfaces = Vec::new();
    for i in replica.follow(row, "interfaces", "Interface") {
        let w = read_interface(&i, bridge);
        let owner = claims.owners.get(&w.name).map_or(bridge, String::as_str);
        if owner != bridge || claims.taken.contains(&w.name) {
            let why = format!("interface {} is already in bridge {owner}", w.name);
            infra::vlog!(LOG, Warn, "bridge {bridge}: {why}");
            claims.rejected.push((w.row, why));
            continue;
        }
        claims.taken.insert(w.name.clone());
        interfaces.push(w);
    }
    if interfaces.is_empty() {
        return None;
    }
    let tag = row.int_opt("tag").and_then(|t| u16::try_from(t).ok()).filter(|t| *t < 4096);
    let trunk_ids = vlan_ids(row, "trunks");
    let vlan_mode = match row.str_opt("vlan_mode") {
        Some("access") => VlanMode::Access,
        Some("native-tagged") => VlanMode::NativeTagged,
        Some("native-untagged") => VlanMode::NativeUntagged,
        Some("trunk") => VlanMode::Trunk,
        other => {
            if let Some(m) = other {
                infra::vlog!(LOG, Err, "port {name}: unsupported VLAN mode {m}, falling back to trunk mode");
                VlanMode::Trunk
            } else if tag.is_some() {
                VlanMode::Access
            } else {
                VlanMode::Trunk
            }
        }
    };
    if vlan_mode == VlanMode::Access && tag.is_some() && !trunk_ids.is_empty() {
        infra::vlog!(LOG, Err, "port {name}: ignoring trunks in favor of implicit vlan");
    }
    Some(WantedPort {
        interfaces,
        vlan_mode,
        tag,
        trunks: (!trunk_ids.is_empty()).then(|| VlanSet::new(trunk_ids)),
        priority_tags: match row.map_get("other_config", "priority-tags") {
            Some("always") => PriorityTags::Always,
            Some("if-nonzero" | "true") => PriorityTags::IfNonzero,
            _ => PriorityTags::Never,
        },
        protected: row.bool("protected"),
        name,
    })
}

fn read_interface(row: &RowRef<'_>, bridge: &str) -> WantedInterface {
    let name = row.str("name").to_string();
    let kind = match row.str("type") {
        // A bridge's local port is internal, whatever the row says.
        _ if name == bridge => "internal",
        "" => "system",
        t => t,
    };
    let mac_text = row.str_opt("mac");
    let mac = mac_text.and_then(parse_mac);
    if let (Some(t), None) = (mac_text, mac) {
        infra::vlog!(LOG, Warn, "interface {name}: ignoring mac \"{t}\", which is not an Ethernet address");
    }
    let number = |column: &str| {
        let value = row.int_opt(column).and_then(|p| u16::try_from(p).ok());
        value.filter(|p| (1..OfPort::MAX.0).contains(p)).map(OfPort)
    };
    WantedInterface {
        row: row.uuid(),
        kind: kind.into(),
        config: netdev::Config {
            options: text_map(row, "options"),
            other_config: text_map(row, "other_config"),
            mtu_request: row.int_opt("mtu_request").and_then(|m| u16::try_from(m).ok()),
        },
        ofport_request: number("ofport_request"),
        ofport_hint: number("ofport"),
        mac,
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(parse_mac("00:11:22:aa:BB:0c"), Some([0, 0x11, 0x22, 0xaa, 0xbb, 0x0c]));
        for bad in ["", "0:1:2:3:4", "0:1:2:3:4:5:6", "00:11:22:33:44:5g", "001:2:3:4:5:6", "::::: "] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
        assert_eq!(parse_datapath_id("0000000000000001"), Some(1));
        assert_eq!(parse_datapath_id("0xff"), Some(255));
        for bad in ["", "0", "g", "00000000000000001"] {
            assert_eq!(parse_datapath_id(bad), None, "{bad}");
        }
    }
}
