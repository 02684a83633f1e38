//! The tables and columns of the Open_vSwitch database (ovs-vswitchd.conf.db(5)) that the switch reads and writes.
//!
//! Neighbours: `wanted` reads them, `status` writes them. Threads: main only.

use ovsdb::{ClientConfig, TableSpec};

/// The lock that lets one daemon act on a database.
const LOCK: &str = "ovs_vswitchd";

/// The client configuration for the database at `remote`.
pub fn client_config(remote: &str) -> ClientConfig {
    let tables = vec![
        TableSpec::new("Open_vSwitch")
            .columns(["bridges", "next_cfg", "other_config", "ssl"])
            .quiet(["cur_cfg", "ovs_version", "db_version", "system_type", "system_version"])
            .optional_quiet(["datapath_types", "iface_types", "dpdk_initialized", "dpdk_version"]),
        TableSpec::new("Bridge")
            .columns([
                "name",
                "ports",
                "datapath_type",
                "fail_mode",
                "protocols",
                "controller",
                "other_config",
            ])
            .columns(["flood_vlans"])
            .quiet(["datapath_id"])
            .optional_quiet(["datapath_version"]),
        TableSpec::new("Port")
            .columns(["name", "interfaces", "tag", "trunks", "vlan_mode", "other_config"])
            .optional(["protected"]),
        TableSpec::new("Interface")
            .columns(["name", "type", "options", "other_config", "mac", "mtu_request", "ofport_request"])
            .quiet([
                "ofport",
                "error",
                "mac_in_use",
                "ifindex",
                "link_state",
                "link_resets",
                "link_speed",
                "duplex",
            ])
            .quiet(["admin_state", "mtu", "status", "statistics"]),
        TableSpec::new("Controller")
            .columns(["target", "max_backoff", "inactivity_probe", "other_config"])
            .optional(["type"])
            .quiet(["is_connected", "role", "status"]),
        TableSpec::new("SSL").columns(["private_key", "certificate", "ca_cert", "bootstrap_ca_cert"]),
    ];
    ClientConfig::new(remote, "Open_vSwitch", tables).lock(LOCK)
}
