//! Event counters of the switch's configuration (`coverage/show`).
//!
//! Neighbours: `manager`, `status` and the commands count. Threads: main.

infra::counters! {
    /// The database changed, and all was brought in line with it.
    RECONFIGURED = "bridge_reconfigure",
    /// A datapath was removed with its last bridge.
    DESTROYED = "dpif_destroy",
    /// All flows of a datapath were removed.
    FLOW_FLUSH = "dpif_flow_flush",
    /// A flow was asked for.
    FLOW_GET = "dpif_flow_get",
    /// The kernel told of a change of a link.
    LINK_CHANGED = "nln_changed",
    /// Flows were to be looked at again because a link or a port's state changed.
    PORT_TOGGLED = "rev_port_toggled",
    /// Flows were to be looked at again because the configuration changed.
    RECONFIGURE = "rev_reconfigure",
}
