//! Event counters of the datapath (`coverage/show`), but for drops, which `drops` has.
//!
//! Neighbours: `dp` and `control` count what is asked of them; `thread` hands on what it counted by itself. Threads:
//! any.

use crate::drops::Drop;

infra::counters! {
    /// Actions were run on a packet.
    EXECUTE = "dpif_execute",
    /// The removal of a flow was asked for.
    FLOW_DEL = "dpif_flow_del",
    /// A flow, or other actions of one, were asked for.
    FLOW_PUT = "dpif_flow_put",
    /// A port was added.
    PORT_ADD = "dpif_port_add",
    /// A port was removed.
    PORT_DEL = "dpif_port_del",
    /// A burst of packets was received.
    RECEIVED = "netdev_received",
    /// A burst of packets was sent.
    SENT = "netdev_sent",
    /// A hit was translated afresh.
    SELF_CHECKS = "flow_self_check",
}

/// Makes these and the counters of drops known before their first event.
pub fn register_all() {
    register();
    for reason in Drop::ALL {
        reason.counter().register();
    }
}
