//! Reading the text of datapath keys and actions: the inverse of [`super::format_key`] and
//! [`super::format_actions`].
//!
//! A key is read attribute by attribute, in any order; each goes into a flow and a mask of its own. What counts
//! is decided afterwards from the ethertype and the IP protocol: an attribute that does not belong there is left
//! out and noted in [`Fit`]. Numbers wider than their field lose their high bits, as in Open vSwitch.
//!
//! Neighbours: `key` reads the attributes, `action` the actions, both over `scan`. Threads: plain functions.

mod action;
mod attr;
mod scan;
#[cfg(test)]
mod tests;

pub use action::{parse_actions, ActionError};

use super::Ufid;
use crate::be::{Be16, Be32};
use crate::key::{Flow, Mask, FRAG_LATER, MAX_VLANS, VLAN_CFI};
use crate::port::DpPort;
use attr::{Attr, Attrs};

/// Datapath ports by name; `None` when there is no such port.
pub type PortNumbers<'a> = &'a dyn Fn(&str) -> Option<DpPort>;

/// How to read a key.
#[derive(Clone, Copy)]
pub struct KeyOptions<'a> {
    /// Port names that `in_port(NAME)` may give.
    pub ports: PortNumbers<'a>,
    /// Whether `value/mask` is allowed.
    pub masks: bool,
    /// VLAN headers looked at; deeper ones count as payload.
    pub vlan_limit: usize,
}

impl Default for KeyOptions<'_> {
    fn default() -> Self {
        KeyOptions { ports: &|_| None, masks: true, vlan_limit: MAX_VLANS }
    }
}

/// How well the attributes describe a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fit {
    /// Exactly what the flow needs.
    #[default]
    Perfect,
    /// There are attributes that the flow has no place for: they were left out.
    TooMuch,
    /// Attributes are missing: they count as zero.
    TooLittle,
}

/// A key with its mask.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ParsedKey {
    /// Values; `in_port` is [`DpPort::NONE`] when none was given.
    pub flow: Flow,
    /// Significant bits: those of the attributes given.
    pub mask: Mask,
    /// How well the attributes describe a flow.
    pub fit: Fit,
}

/// A key that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// Not the text of a key.
    #[error("syntax error at {0}")]
    Syntax(String),
    /// The same attribute twice.
    #[error("duplicate {name} attribute in flow key; the flow key in error is: {key}")]
    Duplicate {
        /// The attribute.
        name: &'static str,
        /// The whole key.
        key: String,
    },
    /// An ethertype that is a length.
    #[error("invalid Ethertype {ethertype} in flow key; the flow key in error is: {key}")]
    Ethertype {
        /// The ethertype given.
        ethertype: u16,
        /// The whole key.
        key: String,
    },
    /// An ARP opcode wider than a byte.
    #[error("unsupported ARP opcode {op} in flow key; the flow key in error is: {key}")]
    ArpOp {
        /// The opcode given.
        op: u16,
        /// The whole key.
        key: String,
    },
    /// A VLAN tag without its "present" bit.
    #[error(
        "OVS_KEY_ATTR_VLAN {tci:#06x} is nonzero but CFI bit is not set; the flow key in error is: {key}"
    )]
    Cfi {
        /// The tag control information given.
        tci: u16,
        /// The whole key.
        key: String,
    },
    /// The last byte of a fragment field that does not exist.
    #[error("invalid nw_frag {frag} in flow key; the flow key in error is: {key}")]
    Frag {
        /// The fragment bits given.
        frag: u8,
        /// The whole key.
        key: String,
    },
}

/// Reads a key as `dpctl/dump-flows` prints it, or as people write it:
/// `in_port(1),eth(src=...,dst=...),eth_type(0x0800),ipv4(...)`.
pub fn parse_key(text: &str, options: &KeyOptions) -> Result<ParsedKey, KeyError> {
    let attrs = attr::parse(text, options)?;
    let mut b = Builder { text, options, flow: Flow::default(), mask: Flow::default(), fit: Fit::Perfect };
    b.build(&attrs)?;
    Ok(ParsedKey { flow: b.flow, mask: Mask(b.mask), fit: b.fit })
}

/// Reads `ufid:...` at the start of a flow's text. Returns the rest of the text, without the separator.
pub fn split_ufid(text: &str) -> (Option<Ufid>, &str) {
    let t = text.trim_start();
    let Some(rest) = t.strip_prefix("ufid:") else { return (None, text) };
    let end = rest.find(|c: char| c != '-' && !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    match Ufid::parse(&rest[..end]) {
        Some(u) => (Some(u), rest[end..].trim_start_matches([',', ' ', '\t', '\r', '\n'])),
        None => (None, text),
    }
}

/// `dl_type` of a frame that has none.
const NO_ETHERTYPE: u16 = 0x05ff;

/// Puts attributes together to a flow.
struct Builder<'a> {
    text: &'a str,
    options: &'a KeyOptions<'a>,
    flow: Flow,
    mask: Flow,
    fit: Fit,
}

impl Builder<'_> {
    fn take(&mut self, attr: &Attr) {
        let or = |to: &mut Flow, from: &Flow| {
            to.words_mut().iter_mut().zip(from.words()).for_each(|(t, f)| *t |= f);
        };
        or(&mut self.flow, &attr.flow);
        or(&mut self.mask, &attr.mask);
    }

    fn key(&self) -> String {
        self.text.trim().to_string()
    }

    /// Takes the attribute when it is there. What is missing makes the fit worse.
    fn want(&mut self, attrs: &mut Attrs<'_>, name: &'static str) -> bool {
        match attrs.take(name) {
            Some(a) => {
                self.take(a);
                true
            }
            None => {
                self.lacks();
                false
            }
        }
    }

    fn lacks(&mut self) {
        if self.fit == Fit::Perfect {
            self.fit = Fit::TooLittle;
        }
    }

    fn build(&mut self, all: &[Attr]) -> Result<(), KeyError> {
        let mut attrs = self.distinct(all)?;
        for name in attr::metadata() {
            if let Some(a) = attrs.take(name) {
                self.take(a);
            }
        }
        match attrs.take("in_port") {
            Some(a) => self.take(a),
            None => self.flow.in_port = DpPort::NONE.0,
        }
        let packet_type = attrs.take("packet_type");
        let eth = attrs.take("eth");
        if let Some(a) = &eth {
            self.take(a);
        }
        if let Some(a) = &packet_type {
            self.take(a);
        }
        let ethernet = match &packet_type {
            Some(_) => self.flow.packet_type.is_zero(),
            None => eth.is_some() || attrs.get("eth_type").is_none(),
        };
        self.layers(attrs, ethernet)
    }

    /// Ethertypes, VLANs and all above.
    fn layers(&mut self, attrs: Attrs<'_>, ethernet: bool) -> Result<(), KeyError> {
        let mut attrs = attrs;
        let mut depth = 0;
        loop {
            self.ethertype(&mut attrs, ethernet)?;
            let tagged = matches!(self.flow.dl_type.get(), 0x8100 | 0x88a8);
            if !tagged || !ethernet || depth >= MAX_VLANS.min(self.options.vlan_limit) {
                break;
            }
            let (tpid, tpid_mask) = (self.flow.dl_type, self.mask.dl_type);
            let Some(vlan) = attrs.take("vlan") else {
                self.lacks();
                break;
            };
            let (tci, tci_mask) = (vlan.flow.vlans[0].tci, vlan.mask.vlans[0].tci);
            if tci.get() & VLAN_CFI == 0 {
                if !tci.is_zero() {
                    return Err(KeyError::Cfi { tci: tci.get(), key: self.key() });
                }
                // A frame that ends within its tag.
                self.mask.vlans[depth].tci = tci_mask;
                attrs.take("encap");
                break;
            }
            (self.flow.vlans[depth].tpid, self.flow.vlans[depth].tci) = (tpid, tci);
            (self.mask.vlans[depth].tpid, self.mask.vlans[depth].tci) = (tpid_mask, tci_mask);
            (self.flow.dl_type, self.mask.dl_type) = (Be16::ZERO, Be16::ZERO);
            depth += 1;
            let Some(encap) = attrs.take("encap") else {
                self.lacks();
                break;
            };
            self.leftovers(&attrs);
            attrs = self.distinct(&encap.inner)?;
            if encap.inner.is_empty() {
                // 802.2 within the tag.
                self.mask.dl_type = Be16::MAX;
            }
        }
        self.network(&mut attrs)?;
        self.leftovers(&attrs);
        Ok(())
    }

    fn leftovers(&mut self, attrs: &Attrs<'_>) {
        if !attrs.is_empty() {
            self.fit = Fit::TooMuch;
        }
    }

    fn distinct<'b>(&self, all: &'b [Attr]) -> Result<Attrs<'b>, KeyError> {
        Attrs::new(all).map_err(|name| KeyError::Duplicate { name, key: self.key() })
    }

    fn ethertype(&mut self, attrs: &mut Attrs<'_>, ethernet: bool) -> Result<(), KeyError> {
        let Some(a) = attrs.take("eth_type") else {
            self.flow.dl_type = if ethernet {
                Be16::new(NO_ETHERTYPE)
            } else {
                Be16::new(self.flow.packet_type.get() as u16)
            };
            return Ok(());
        };
        self.take(a);
        let ethertype = a.flow.dl_type.get();
        if ethertype == 0 && self.options.masks && a.mask.dl_type == Be16::MAX && a.masked {
            self.flow.dl_type = Be16::new(NO_ETHERTYPE);
        } else if ethertype < 0x600 {
            return Err(KeyError::Ethertype { ethertype, key: self.key() });
        }
        if !ethernet && self.flow.packet_type.is_zero() {
            self.flow.packet_type = Be32::new(0x1_0000 | u32::from(ethertype));
            self.mask.packet_type = Be32::MAX;
        }
        Ok(())
    }

    fn network(&mut self, attrs: &mut Attrs<'_>) -> Result<(), KeyError> {
        let there = match self.flow.dl_type.get() {
            0x0800 => self.want(attrs, "ipv4"),
            0x86dd => self.want(attrs, "ipv6"),
            0x0806 | 0x8035 => {
                if let Some(op) = attrs.get("arp").and_then(|a| a.arp_op).filter(|&op| op > 0xff) {
                    return Err(KeyError::ArpOp { op, key: self.key() });
                }
                self.want(attrs, "arp");
                return Ok(());
            }
            0x8847 | 0x8848 => {
                self.want(attrs, "mpls");
                return Ok(());
            }
            _ => return Ok(()),
        };
        if there && self.flow.nw_frag > 3 {
            return Err(KeyError::Frag { frag: self.flow.nw_frag, key: self.key() });
        }
        if self.flow.nw_frag & FRAG_LATER != 0 {
            return Ok(());
        }
        let ip6 = self.flow.dl_type.get() == 0x86dd;
        match self.flow.nw_proto {
            6 => {
                self.want(attrs, "tcp");
                if let Some(a) = attrs.take("tcp_flags") {
                    self.take(a);
                }
            }
            17 => drop(self.want(attrs, "udp")),
            132 => drop(self.want(attrs, "sctp")),
            1 if !ip6 => drop(self.want(attrs, "icmp")),
            58 if ip6 => {
                self.want(attrs, "icmpv6");
                if matches!(self.flow.tp_src.get(), 135 | 136) && self.flow.tp_dst.is_zero() {
                    self.want(attrs, "nd");
                }
            }
            _ => {}
        }
        Ok(())
    }
}
