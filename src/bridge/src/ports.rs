//! Adding, changing and removing the interfaces of a bridge.
//!
//! Neighbours: `manager` decides which; devices come from the factories. Threads: main only.

use crate::manager::LOG;
use crate::state::{Bridge, Interface};
use crate::wanted::WantedInterface;
use datapath::{DpError, Provider};
use flow::{DpPort, OfPort};
use netdev::{Config, Error, Factory, Netdev};
use ofproto::port::{Port, PortKind};
use ofproto::PortConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

static OF_LOG: infra::vlog::Module = infra::vlog::Module::new("ofproto");
static LIMIT: infra::vlog::RateLimit = infra::vlog::RateLimit::new(5, 5);

/// Opens devices of all types.
pub struct Opener {
    factories: Vec<Arc<dyn Factory>>,
}

impl Opener {
    pub(crate) fn new(factories: Vec<Arc<dyn Factory>>) -> Opener {
        Opener { factories }
    }

    pub(crate) fn open(&self, name: &str, kind: &str, config: &Config) -> Result<Arc<dyn Netdev>, Error> {
        match self.factories.iter().find(|f| f.types().contains(&kind)) {
            Some(f) => f.open(name, kind, config),
            None => Err(Error::UnknownType(kind.into())),
        }
    }

    /// All interface types, sorted.
    pub(crate) fn types(&self) -> Vec<&'static str> {
        let mut t: Vec<_> = self.factories.iter().flat_map(|f| f.types().iter().copied()).collect();
        t.push("patch");
        t.sort_unstable();
        t.dedup();
        t
    }
}

static NETDEV: infra::vlog::Module = infra::vlog::Module::new("netdev");

/// The text for `Interface.error`.
fn error_text(name: &str, e: &Error) -> String {
    match e {
        Error::UnknownType(kind) => {
            infra::vlog!(NETDEV, Warn, "could not create netdev {name} of unknown type {kind}");
            format!("could not open network device {name} (Address family not supported by protocol)")
        }
        other => other.to_string(),
    }
}

/// Brings `w` into effect, or keeps the reason why it is not. True when a device that was there was changed.
pub(crate) fn ensure(b: &mut Bridge, w: &WantedInterface, opener: &Opener) -> bool {
    if b.interfaces.contains_key(&w.name) {
        return update(b, w);
    }
    let mut iface = Interface {
        wanted: w.clone(),
        error: None,
        ofport: None,
        netdev: None,
        dp_port: None,
        starting: false,
        patch_mac: random_mac(),
    };
    if let Err(text) = bring_up(b, &mut iface, opener) {
        infra::vlog!(LOG, Warn, "{text}");
        iface.error = Some(text);
    }
    b.interfaces.insert(w.name.clone(), iface);
    false
}

fn bring_up(b: &mut Bridge, iface: &mut Interface, opener: &Opener) -> Result<(), String> {
    let w = iface.wanted.clone();
    let (dp, class) = (b.backer.provider(), b.backer.class);
    let is_local = w.name == b.wanted.name;
    let kind = if iface.is_patch() {
        check_patch(&w)?;
        PortKind::Patch { peer: iface.peer().unwrap_or_default().into() }
    } else {
        let netdev = opener
            .open(&w.name, class.device_kind(&w.kind), &w.config)
            .map_err(|e| error_text(&w.name, &e))?;
        configure(&netdev, &w);
        // Linux devices are the host's to bring up; poll-mode devices are up unless somebody takes them down.
        if netdev.is_pmd() {
            if let Err(e) = netdev.set_admin_up(true) {
                infra::vlog!(LOG, Warn, "{}: cannot be brought up: {e}", w.name);
            }
        }
        let wanted = class.port_number(dp.as_ref(), &w.name);
        let dp_port = dp.add_port(netdev.clone(), wanted).map_err(|e| dp_error_text(&w.name, &e))?;
        iface.netdev = Some(netdev.clone());
        iface.dp_port = Some(dp_port);
        iface.starting = true;
        PortKind::Device { netdev, dp_port }
    };
    let no = if is_local { Some(OfPort::LOCAL) } else { b.of.allocate_port(w.ofport_request, w.ofport_hint) };
    let Some(no) = no else {
        if let Some(dp_port) = iface.dp_port.take() {
            dp.del_port(dp_port);
        }
        iface.netdev = None;
        return Err(format!("{}: no free OpenFlow port number is left", w.name));
    };
    iface.ofport = Some(no);
    if let Some(dp_port) = iface.dp_port {
        settle(dp.as_ref(), dp_port, &b.wanted.name, no, &w);
    }
    let mut port = Port {
        no,
        name: w.name.clone(),
        kind,
        hw_addr: iface.patch_mac,
        config: PortConfig::default(),
        link: netdev::LinkState { up: true, admin_up: true, ..Default::default() },
        created_ms: infra::clock::now_ms().max(0) as u64,
        counters: Arc::default(),
    };
    port.refresh();
    b.of.add_port(port);
    infra::vlog!(LOG, Info, "bridge {}: added interface {} on port {}", b.wanted.name, w.name, no.0);
    Ok(())
}

/// Gives the datapath its settings of a port. A list that cannot be read leaves them as they are.
fn settle(dp: &dyn Provider, dp_port: DpPort, bridge: &str, no: OfPort, w: &WantedInterface) {
    let why = match crate::settings::port_config(&w.config.other_config) {
        Some(config) => dp.set_port_config(dp_port, config).err().map(|e| e.to_string()),
        None => Some("Invalid argument".to_owned()),
    };
    if let Some(why) = why {
        let name = &w.name;
        infra::vlog!(
            OF_LOG,
            Warn,
            "{bridge}: datapath configuration on port {} ({name}) failed ({why})",
            no.0
        );
    }
}

/// Whether the options of a patch port are what such a port needs.
fn check_patch(w: &WantedInterface) -> Result<(), String> {
    let (name, options) = (&w.name, &w.config.options);
    match options.get("peer") {
        None => Err(format!("{name}: patch type requires valid 'peer' argument")),
        Some(_) if options.len() > 1 => Err(format!("{name}: patch type takes only a 'peer' argument")),
        Some(peer) if peer == name => Err(format!("{name}: patch peer must not be self")),
        Some(_) => Ok(()),
    }
}

fn dp_error_text(name: &str, e: &DpError) -> String {
    match e {
        DpError::Device(d) => error_text(name, d),
        other => format!("could not add network device {name} to ofproto ({other})"),
    }
}

/// What can be set on an open device: address and MTU. Refusals are logged; the device stays.
fn configure(netdev: &Arc<dyn Netdev>, w: &WantedInterface) {
    if let Some(mac) = w.mac.filter(|m| *m != netdev.mac()) {
        if let Err(e) = netdev.set_mac(mac) {
            infra::vlog!(LOG, Err, "interface {}: setting MAC failed ({e})", w.name);
        }
    }
    if let Some(mtu) = w.config.mtu_request.filter(|m| *m != netdev.mtu()) {
        if let Err(e) = netdev.set_mtu(mtu) {
            infra::vlog!(LOG, Err, "interface {}: setting MTU {mtu} failed ({e})", w.name);
        }
    }
}

/// Applies changes of the row to an interface in effect.
fn update(b: &mut Bridge, w: &WantedInterface) -> bool {
    let dp = b.backer.provider();
    let Some(iface) = b.interfaces.get_mut(&w.name) else { return false };
    if w.ofport_request.is_some() && w.ofport_request != iface.wanted.ofport_request {
        renumber(&mut b.of, iface, w.ofport_request);
    }
    let changed = iface.wanted.config != w.config || iface.wanted.mac != w.mac;
    iface.wanted = w.clone();
    if !changed || iface.is_patch() {
        return false;
    }
    let (Some(netdev), Some(no)) = (iface.netdev.clone(), iface.dp_port) else { return false };
    iface.error = None;
    configure(&netdev, w);
    let applied = netdev.set_config(&w.config).map_err(|e| error_text(&w.name, &e)).and_then(|waits| {
        if waits {
            dp.port_changed(no).map_err(|e| dp_error_text(&w.name, &e))
        } else {
            Ok(())
        }
    });
    if let Err(text) = applied {
        infra::vlog!(LOG, Warn, "{}: could not set configuration ({text})", w.name);
        iface.error = Some(text);
    }
    if let Some(ofport) = iface.ofport {
        settle(dp.as_ref(), no, &b.wanted.name, ofport, w);
    }
    true
}

/// Gives a port that is there the OpenFlow number `wanted`, if that is free.
fn renumber(of: &mut ofproto::ofproto::Ofproto, iface: &mut Interface, wanted: Option<OfPort>) {
    let (Some(old), Some(new)) = (iface.ofport, wanted) else { return };
    if old == new || old == OfPort::LOCAL || of.port(new).is_some() {
        return;
    }
    let Some(mut port) = of.remove_port(old) else { return };
    port.no = new;
    of.add_port(port);
    iface.ofport = Some(new);
}

/// Takes the interface `name` out of the bridge and the datapath, and closes its device.
pub(crate) fn remove(b: &mut Bridge, name: &str) {
    let Some(iface) = b.interfaces.remove(name) else { return };
    if let Some(no) = iface.ofport {
        b.of.remove_port(no);
        infra::vlog!(LOG, Info, "bridge {}: deleted interface {name} on port {}", b.wanted.name, no.0);
    }
    if let Some(bundle) = b.bundle_of(name) {
        b.macs.flush_bundle(bundle.id);
    }
    if let Some(no) = iface.dp_port {
        b.backer.provider().del_port(no);
    }
}

/// The datapath gave a port another number.
pub(crate) fn renumbered(b: &mut Bridge, old: DpPort, new: DpPort) {
    for i in b.interfaces.values_mut().filter(|i| i.dp_port == Some(old)) {
        i.dp_port = Some(new);
        if let Some(no) = i.ofport {
            b.of.renumber_dp_port(no, new);
        }
    }
}

/// Lets new ports receive, now that translation knows them. True when one could not, and went.
pub(crate) fn start(b: &mut Bridge) -> bool {
    let dp = b.backer.provider();
    let mut gone = false;
    for (name, i) in &mut b.interfaces {
        if !std::mem::take(&mut i.starting) {
            continue;
        }
        let Some(Err(e)) = i.dp_port.map(|no| dp.start_port(no)) else { continue };
        let text = dp_error_text(name, &e);
        infra::vlog!(LOG, Warn, "{text}");
        if let Some(no) = i.ofport.take() {
            b.of.remove_port(no);
        }
        (i.error, i.netdev, i.dp_port) = (Some(text), None, None);
        gone = true;
    }
    gone
}

/// A random, locally administered unicast address.
fn random_mac() -> [u8; 6] {
    use std::hash::{BuildHasher, Hasher};
    let r = std::collections::hash_map::RandomState::new().build_hasher().finish().to_be_bytes();
    [(r[0] & 0xfc) | 0x02, r[1], r[2], r[3], r[4], r[5]]
}

fn as_u64(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |v, b| v << 8 | u64::from(*b))
}

/// Chooses the local port's address (`hwaddr`, else the lowest universally administered address among the ports, else
/// the device's own) and the datapath id that follows from it.
pub(crate) fn pick_identity(b: &mut Bridge) {
    let local_name = b.wanted.name.clone();
    let from_ports = || {
        b.interfaces
            .iter()
            .filter(|(n, i)| **n != local_name && !i.is_patch())
            .filter_map(|(_, i)| i.wanted.mac.or_else(|| Some(i.netdev.as_ref()?.mac())))
            .filter(|m| m[0] & 3 == 0 && *m != [0; 6])
            .min()
    };
    let Some(local) = b.local().and_then(|l| l.netdev.clone()) else { return };
    // A dummy device's own address tells nothing.
    let random = || b.local().filter(|_| local.dpif_type() == "dummy-internal").map(|l| l.patch_mac);
    let wanted = b.wanted.hwaddr.or_else(from_ports).or_else(random);
    if let Some(mac) = wanted.filter(|m| *m != local.mac()) {
        if let Err(e) = local.set_mac(mac) {
            infra::vlog!(LOG, Err, "bridge {local_name}: failed to set bridge Ethernet address: {e}");
        }
        b.of.refresh_ports();
    }
    let id = b.wanted.datapath_id.unwrap_or_else(|| as_u64(wanted.unwrap_or_else(|| local.mac())));
    if b.of.datapath_id != id {
        b.of.datapath_id = id;
        infra::vlog!(LOG, Info, "bridge {local_name}: using datapath ID {id:016x}");
    }
}

/// Gives the bridge's tap devices the smallest MTU among its other devices, unless their rows ask for one of their own.
/// True when one changed.
pub(crate) fn follow_mtu(b: &Bridge) -> bool {
    let devices = || b.interfaces.values().filter_map(|i| Some((i, i.netdev.as_ref()?)));
    let is_tap = |n: &Arc<dyn Netdev>| n.dpif_type() == "tap";
    // A device that went away has no MTU.
    let least = devices().filter(|(_, n)| !is_tap(n)).map(|(_, n)| n.mtu()).filter(|m| *m != 0).min();
    let mtu = least.unwrap_or(1500);
    let mut changed = false;
    for (i, n) in devices().filter(|(i, n)| is_tap(n) && i.wanted.config.mtu_request.is_none()) {
        if n.mtu() != mtu {
            match n.set_mtu(mtu) {
                Ok(()) => changed = true,
                Err(e) => infra::vlog_rl!(
                    LOG,
                    LIMIT,
                    Err,
                    "interface {}: setting MTU {mtu} failed ({e})",
                    i.wanted.name
                ),
            }
        }
    }
    changed
}

/// Puts the reason beside patch ports without a usable peer.
pub(crate) fn check_patch_peers(bridges: &mut BTreeMap<String, Bridge>) {
    let mut verdicts = Vec::new();
    for (bn, b) in bridges.iter() {
        for (n, i) in b.interfaces.iter().filter(|(_, i)| i.is_patch() && i.ofport.is_some()) {
            let missing = crate::publish::patch_peer(bridges, b, n, i).is_none();
            let peer = i.peer().unwrap_or_default();
            let text = missing
                .then(|| format!("No usable peer '{peer}' exists in '{}' datapath.", b.wanted.datapath_type));
            verdicts.push((bn.clone(), n.clone(), text));
        }
    }
    for (bn, n, text) in verdicts {
        if let Some(i) = bridges.get_mut(&bn).and_then(|b| b.interfaces.get_mut(&n)) {
            i.error = text;
        }
    }
}
