//! Event counters of the daemon itself, and those of all parts (`coverage/show`).
//!
//! Neighbours: `stream`, `controllers` and `unixctl` count. Main thread.

infra::counters! {
    /// A listening socket was opened.
    PSTREAM_OPEN = "pstream_open",
    /// A connection was begun.
    STREAM_OPEN = "stream_open",
    /// A request came to the control socket.
    UNIXCTL_RECEIVED = "unixctl_received",
    /// A request to the control socket was answered.
    UNIXCTL_REPLIED = "unixctl_replied",
    /// A connection to a controller was begun.
    VCONN_OPEN = "vconn_open",
}

/// Makes the counters of all parts known, so that those of events that never came can be read.
pub fn register_all() {
    register();
    bridge::coverage::register();
    datapath::coverage::register_all();
    netdev::coverage::register();
    ofproto::coverage::register();
    ovsdb::coverage::register();
}
