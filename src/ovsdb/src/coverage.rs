//! Event counters of transactions (`coverage/show`).
//!
//! Neighbours: `client` counts. Threads: any.

infra::counters! {
    /// The server refused one.
    ERROR = "txn_error",
    /// One was sent.
    INCOMPLETE = "txn_incomplete",
    /// Somebody else has the lock.
    NOT_LOCKED = "txn_not_locked",
    /// One is in the database.
    SUCCESS = "txn_success",
    /// The whole content came.
    SYNC_ALL = "ovsdb_sync_all",
    /// Only what had changed came.
    SYNC_CHANGES = "ovsdb_sync_changes",
    /// The database was not as expected, or the connection ended.
    TRY_AGAIN = "txn_try_again",
    /// There was nothing to change.
    UNCHANGED = "txn_unchanged",
}
