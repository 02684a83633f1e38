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

            /// The reason that a drop action carries: its number here.
            pub(crate) fn of_action(code: u32) -> Drop {
                Drop::ALL.get(code as usize).copied().unwrap_or(Drop::Action)
            }

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
    /// The actions are empty, or end without having sent the packet anywhere, or say so.
    Action = "drop_action_of_pipeline",
    /// Translation went through too many tables within each other.
    RecursionTooDeep = "drop_action_recursion_too_deep",
    /// Translation went through too many tables.
    TooManyResubmits = "drop_action_too_many_resubmit",
    /// Translation pushed too much on the stack.
    StackTooDeep = "drop_action_stack_too_deep",
    /// A recirculated packet of which nobody knows any more how it goes on.
    NoRecirculationContext = "drop_action_no_recirculation_context",
    /// Translation pushed more MPLS labels than a packet can have.
    TooManyMplsLabels = "drop_action_too_many_mpls_labels",
    /// A recirculated packet whose bridge is gone.
    BridgeNotFound = "drop_action_bridge_not_found",
    /// Translation made more actions than a flow can have.
    TooManyActions = "drop_action_too_many_actions",
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
