//! Event counters of Linux devices (`coverage/show`).
//!
//! Neighbours: `device` and `netlink` count. Threads: any.

infra::counters! {
    /// Settings or driver of a device were asked for.
    GET_ETHTOOL = "netdev_get_ethtool",
    /// An Ethernet address was asked for.
    GET_HWADDR = "netdev_get_hwaddr",
    /// The kernel's number of a device was asked for.
    GET_IFINDEX = "netdev_get_ifindex",
    /// The counters of a port were asked for; whoever asks counts.
    GET_STATS = "netdev_get_stats",
    /// An Ethernet address was set.
    SET_HWADDR = "netdev_set_hwaddr",
    /// A netlink message was received.
    NETLINK_RECEIVED = "netlink_received",
    /// A netlink message was sent.
    NETLINK_SENT = "netlink_sent",
}
