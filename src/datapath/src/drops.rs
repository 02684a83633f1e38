//! Why packets are dropped. The enum value is the counter.
//!
//! Neighbours: every place that drops; `coverage/show` and tests read the names. Threads: plain data.

use infra::coverage::Counter;

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Drop { $($(#[$doc])* $variant,)* }

        impl Drop {
            /// All reasons.
            pub const ALL: &'static [Drop] = &[$(Drop::$variant,)*];
            /// Number of reasons.
            pub const COUNT: usize = Drop::ALL.len();

            /// The reason's event counter (`coverage/show`).
            pub(crate) fn counter(self) -> &'static Counter {
                match self {
                    $(Drop::$variant => {
                        static COUNTER: Counter = Counter::new($name);
                        &COUNTER
                    })*
                }
            }

            /// The counter's name.
            pub fn name(self) -> &'static str {
                match self { $(Drop::$variant => $name,)* }
            }
        }
    };
}

drops! {
    /// The megaflow's actions are empty.
    Action = "datapath_drop_action",
    /// An explicit drop action or the end of a list that sent the packet nowhere.
    Explicit = "drop_action_of_pipeline",
    /// Translation of a miss failed.
    Upcall = "datapath_drop_upcall_error",
    /// A miss beyond what its receive queue may cost others.
    UpcallShare = "datapath_drop_upcall_share",
    /// The frame is shorter than an Ethernet header or its chain cannot be read.
    BadFrame = "datapath_drop_rx_invalid_packet",
    /// Recirculated too often.
    RecircDepth = "datapath_drop_recirc_error",
    /// Output to a port that is not there.
    NoPort = "datapath_drop_invalid_port",
    /// Longer than the device takes.
    TooLong = "datapath_drop_tx_mtu",
    /// The device did not take it.
    TxFull = "datapath_drop_tx_full",
    /// The ring to the io thread is full.
    IoRing = "datapath_drop_io_ring",
    /// The ring to user space is full.
    UserspaceRing = "datapath_drop_userspace_action_error",
    /// No buffer for a copy.
    NoBuffer = "datapath_drop_no_buffer",
    /// A header could not be pushed, popped or rewritten.
    Push = "datapath_drop_push_error",
    /// The device dropped it on receive.
    RxQueue = "datapath_drop_rx_queue",
    /// A port went away with packets waiting.
    PortGone = "datapath_drop_port_gone",
}
