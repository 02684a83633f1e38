//! Event counters of OpenFlow, translation and revalidation (`coverage/show`).
//!
//! Neighbours: all of this crate counts. Threads: any; each counts in cells of its own.

infra::counters! {
    /// The flow table was looked at twice for one flow in one sweep.
    DUMPED_DUPLICATE = "dumped_duplicate_flow",
    /// A MAC entry left because the table was full.
    MAC_EVICTED = "mac_learning_evicted",
    /// A MAC entry was not used for too long.
    MAC_EXPIRED = "mac_learning_expired",
    /// A MAC address was learned.
    MAC_LEARNED = "mac_learning_learned",
    /// A MAC address was seen on another port.
    MAC_MOVED = "mac_learning_moved",
    /// A MAC address with a static entry was seen on another port.
    MAC_STATIC = "mac_learning_static_none_move",
    /// All rules of a bridge were removed.
    FLUSH = "ofproto_flush",
    /// A packet-out came.
    PACKET_OUT = "ofproto_packet_out",
    /// An OpenFlow message came behind the hello.
    RECV_OPENFLOW = "ofproto_recv_openflow",
    /// A port was added, removed, or changed.
    UPDATE_PORT = "ofproto_update_port",
    /// A packet-in was dropped because the peer does not read.
    PACKET_IN_OVERFLOW = "packet_in_overflow",
    /// A message that nobody asked for was dropped because the peer does not read.
    OVERFLOW = "rconn_overflow",
    /// A message was queued for a peer.
    QUEUED = "rconn_queued",
    /// Flows were to be looked at again because rules changed.
    REV_FLOW_TABLE = "rev_flow_table",
    /// Flows were to be looked at again because MAC entries changed.
    REV_MAC_LEARNING = "rev_mac_learning",
    /// A new flow was not installed because there are too many.
    LIMIT_HIT = "upcall_flow_limit_hit",
    /// All flows were removed because there were twice as many as allowed.
    LIMIT_KILL = "upcall_flow_limit_kill",
    /// An OpenFlow message came.
    RECEIVED = "vconn_received",
    /// A packet or flow was translated.
    XLATE = "xlate_actions",
    /// A translation made more actions than a flow can have.
    OVERSIZE = "xlate_actions_oversize",
    /// A megaflow was found wrong by the self-check, twice.
    SELF_CHECK_FAILED = "flow_self_check_failed",
}
