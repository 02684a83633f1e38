//! When to connect, when to probe, when to give up: the life of a connection that always comes back.
//!
//! Neighbours: [`crate::session`] drives it for the database; OpenFlow sessions have the same life.
//! Threads: belongs to its session; time comes in as milliseconds of a monotonic clock.

use infra::vlog::Level;

use crate::logline::{Lines, LogLine, RECONNECT};

/// A connection that ends after less than this is not counted as healthy.
const MIN_BACKOFF_MS: i64 = 1_000;
const MAX_BACKOFF_MS: i64 = 8_000;

/// What the owner of the socket has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Open a connection, then report how it went.
    Connect,
    /// Drop the connection (or the attempt). No report is due.
    Disconnect,
    /// Send something that the peer must answer.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Backoff { until: i64 },
    Connecting { since: i64 },
    Active { since: i64 },
    Idle { since: i64, probed: i64 },
    Failed { since: i64 },
}

/// The back-off and probing state of one connection.
#[derive(Debug)]
pub struct Reconnect {
    name: String,
    state: State,
    backoff: i64,
    probe_interval: i64,
    min_backoff: i64,
    max_backoff: i64,
    peers: usize,
    /// Attempts that may still be made without waiting.
    free: usize,
    last_activity: i64,
    lines: Lines,
}

impl Reconnect {
    /// A connection that wants to be made at once. `name` is for log lines. `probe_interval_ms` of 0 means
    /// that silence is no reason to disconnect.
    pub fn new(name: &str, probe_interval_ms: i64) -> Reconnect {
        Reconnect {
            name: name.into(),
            state: State::Backoff { until: i64::MIN },
            backoff: 0,
            probe_interval: probe_interval_ms.max(0),
            min_backoff: MIN_BACKOFF_MS,
            max_backoff: MAX_BACKOFF_MS,
            peers: 1,
            free: 0,
            last_activity: 0,
            lines: Lines::default(),
        }
    }

    /// Other bounds for the back-off than 1 s and 8 s.
    pub fn set_backoff(&mut self, min_ms: i64, max_ms: i64) {
        self.min_backoff = min_ms.max(1);
        self.max_backoff = max_ms.max(self.min_backoff);
        self.backoff = self.backoff.min(self.max_backoff);
    }

    /// So many peers are tried in turn: each of them once before there is a wait, at the start and after a
    /// connection that lasted.
    pub fn set_peers(&mut self, count: usize) {
        self.peers = count;
        self.free = count.saturating_sub(1);
    }

    /// Another time of silence before a probe; 0 never probes.
    pub fn set_probe_interval(&mut self, ms: i64) {
        self.probe_interval = ms.max(0);
    }

    /// True between `connected` and the end of the connection.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Active { .. } | State::Idle { .. })
    }

    /// True while the owner has an attempt under way.
    pub fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// The name given to [`Reconnect::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another name from now on: the next attempt goes to another peer.
    pub fn set_name(&mut self, name: &str) {
        self.name = name.into();
    }

    /// What users call the state: `BACKOFF`, `CONNECTING`, `ACTIVE` or `IDLE`.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Backoff { .. } => "BACKOFF",
            State::Connecting { .. } => "CONNECTING",
            State::Active { .. } | State::Failed { .. } => "ACTIVE",
            State::Idle { .. } => "IDLE",
        }
    }

    /// Log lines since the last call.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        self.lines.take()
    }

    /// What is due. Call it until it returns [`Action::None`].
    pub fn run(&mut self, now: i64) -> Action {
        match self.state {
            State::Failed { since } => {
                self.back_off(now, since);
                Action::Disconnect
            }
            _ if self.deadline().is_none_or(|deadline| now < deadline) => Action::None,
            State::Backoff { .. } => {
                self.say(self.info(), "connecting...");
                self.state = State::Connecting { since: now };
                Action::Connect
            }
            State::Connecting { .. } => {
                self.say(self.info(), "connection attempt timed out");
                self.back_off(now, now);
                Action::Disconnect
            }
            State::Active { since } => {
                self.state = State::Idle { since, probed: now };
                Action::Probe
            }
            State::Idle { since, .. } => {
                let seconds = self.probe_interval as f64 / 1000.0;
                self.say(
                    Level::Err,
                    &format!("no response to inactivity probe after {seconds} seconds, disconnecting"),
                );
                self.back_off(now, since);
                Action::Disconnect
            }
        }
    }

    /// When [`Reconnect::run`] has something to do; none if only an event can change that.
    pub fn deadline(&self) -> Option<i64> {
        match self.state {
            State::Failed { .. } => Some(i64::MIN),
            State::Backoff { until } => Some(until),
            State::Connecting { since } => Some(since + self.backoff.max(MIN_BACKOFF_MS)),
            _ if self.probe_interval == 0 => None,
            State::Active { since } => Some(self.last_activity.max(since) + self.probe_interval),
            State::Idle { probed, .. } => Some(probed + self.probe_interval),
        }
    }

    /// The connection stands.
    pub fn connected(&mut self, now: i64) {
        self.say(Level::Info, "connected");
        self.state = State::Active { since: now };
        self.last_activity = now;
    }

    /// The attempt failed.
    pub fn connect_failed(&mut self, now: i64, reason: &str) {
        if self.is_connecting() {
            self.say(self.info(), &format!("connection attempt failed ({reason})"));
            self.back_off(now, now);
        }
    }

    /// The connection ended: closed by the peer, or with an error.
    pub fn disconnected(&mut self, now: i64, error: Option<&str>) {
        match self.state {
            State::Active { since } | State::Idle { since, .. } => {
                match error {
                    Some(error) => self.say(Level::Warn, &format!("connection dropped ({error})")),
                    None => self.say(Level::Info, "connection closed by peer"),
                }
                self.back_off(now, since);
            }
            State::Connecting { .. } => {
                self.connect_failed(now, error.unwrap_or("connection closed by peer"))
            }
            // The failure has been logged; the owner heard of the end by itself.
            State::Failed { since } => self.back_off(now, since),
            State::Backoff { .. } => {}
        }
    }

    /// The peer sent something, whatever it was.
    pub fn activity(&mut self, now: i64) {
        self.last_activity = now;
        if let State::Idle { since, .. } = self.state {
            self.state = State::Active { since };
        }
    }

    /// The peer broke the protocol: the next [`Reconnect::run`] disconnects.
    pub fn fail(&mut self) {
        if let State::Active { since } | State::Idle { since, .. } = self.state {
            self.state = State::Failed { since };
        }
    }

    fn back_off(&mut self, now: i64, connected_since: i64) {
        let healthy = self.last_activity - connected_since >= self.backoff.max(self.min_backoff);
        if healthy {
            self.free = self.peers.saturating_sub(1);
            self.backoff = 0;
        }
        if self.free > 0 {
            self.free -= 1;
            self.state = State::Backoff { until: now };
            return;
        }
        if self.backoff < self.min_backoff {
            self.backoff = self.min_backoff;
        } else if self.backoff >= self.max_backoff / 2 {
            let first = self.backoff < self.max_backoff;
            self.backoff = self.max_backoff;
            if first {
                self.say(
                    Level::Info,
                    "continuing to reconnect in the background but suppressing further logging",
                );
            }
        } else {
            self.backoff *= 2;
            let seconds = self.backoff as f64 / 1000.0;
            self.say(Level::Info, &format!("waiting {seconds} seconds before reconnect"));
        }
        self.state = State::Backoff { until: now + self.backoff };
    }

    /// The level of lines that repeat for as long as the peer is away.
    fn info(&self) -> Level {
        if self.backoff < self.max_backoff {
            Level::Info
        } else {
            Level::Dbg
        }
    }

    fn say(&mut self, level: Level, text: &str) {
        self.lines.push(level, &RECONNECT, format!("{}: {text}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(fsm: &mut Reconnect) -> Vec<String> {
        fsm.take_log().into_iter().filter(|l| l.level != Level::Dbg).map(|l| l.text).collect()
    }

    #[test]
    fn backs_off_from_one_to_eight_seconds() {
        let mut fsm = Reconnect::new("unix:x", 5000);
        let mut now = 100;
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(fsm.run(now), Action::Connect);
            assert_eq!(fsm.run(now), Action::None);
            fsm.connect_failed(now, "No such file or directory");
            let due = fsm.deadline().unwrap();
            waits.push(due - now);
            assert_eq!(fsm.run(due - 1), Action::None);
            now = due;
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(
            texts(&mut fsm),
            [
                "unix:x: connecting...",
                "unix:x: connection attempt failed (No such file or directory)",
                "unix:x: connecting...",
                "unix:x: connection attempt failed (No such file or directory)",
                "unix:x: waiting 2 seconds before reconnect",
                "unix:x: connecting...",
                "unix:x: connection attempt failed (No such file or directory)",
                "unix:x: waiting 4 seconds before reconnect",
                "unix:x: connecting...",
                "unix:x: connection attempt failed (No such file or directory)",
                "unix:x: continuing to reconnect in the background but suppressing further logging",
            ]
        );
        // A connection that lasts makes the next wait short again.
        assert_eq!(fsm.run(now), Action::Connect);
        fsm.connected(now);
        fsm.activity(now + 20_000);
        fsm.disconnected(now + 20_000, None);
        assert_eq!(fsm.deadline(), Some(now + 21_000));
        assert_eq!(texts(&mut fsm), ["unix:x: connected", "unix:x: connection closed by peer"]);
    }

    #[test]
    fn each_of_several_peers_has_a_turn_before_a_wait() {
        let mut fsm = Reconnect::new("tcp:a", 5000);
        fsm.set_peers(3);
        let waits = |fsm: &mut Reconnect, from: i64| {
            let mut now = from;
            let mut waits = Vec::new();
            for _ in 0..5 {
                assert_eq!(fsm.run(now), Action::Connect);
                fsm.connect_failed(now, "Connection refused");
                waits.push(fsm.deadline().unwrap() - now);
                now = fsm.deadline().unwrap();
            }
            (waits, now)
        };
        let (first, now) = waits(&mut fsm, 0);
        assert_eq!(first, [0, 0, 1000, 2000, 4000]);
        assert_eq!(fsm.run(now), Action::Connect);
        fsm.connected(now);
        fsm.activity(now + 5000);
        fsm.disconnected(now + 5000, None);
        assert_eq!(fsm.deadline(), Some(now + 5000));
        let (then, _) = waits(&mut fsm, now + 5000);
        assert_eq!(then, [0, 1000, 2000, 4000, 8000]);
        let said = texts(&mut fsm);
        assert!(said.contains(&"tcp:a: waiting 2 seconds before reconnect".to_string()), "{said:?}");
    }

    #[test]
    fn probes_silence_and_gives_up() {
        let mut fsm = Reconnect::new("tcp:x", 5000);
        assert_eq!(fsm.run(0), Action::Connect);
        fsm.connected(10);
        assert_eq!(fsm.deadline(), Some(5010));
        fsm.activity(1000);
        assert_eq!(fsm.run(5999), Action::None);
        assert_eq!(fsm.run(6000), Action::Probe);
        assert_eq!(fsm.run(6000), Action::None);
        fsm.activity(7000);
        assert_eq!(fsm.run(12_000), Action::Probe);
        assert_eq!(fsm.run(16_999), Action::None);
        assert_eq!(fsm.run(17_000), Action::Disconnect);
        assert!(!fsm.is_connected());
        assert_eq!(
            texts(&mut fsm).last().unwrap(),
            "tcp:x: no response to inactivity probe after 5 seconds, disconnecting"
        );
        assert_eq!(fsm.run(17_999), Action::None);
        assert_eq!(fsm.run(18_000), Action::Connect);
        // An attempt that never ends is given up.
        assert_eq!(fsm.deadline(), Some(19_000));
        assert_eq!(fsm.run(19_000), Action::Disconnect);
    }

    #[test]
    fn without_probes_silence_is_fine() {
        let mut fsm = Reconnect::new("unix:x", 0);
        fsm.run(0);
        fsm.connected(0);
        assert_eq!(fsm.deadline(), None);
        assert_eq!(fsm.run(i64::MAX), Action::None);
        fsm.fail();
        assert_eq!(fsm.run(10), Action::Disconnect);
        assert_eq!(fsm.run(10), Action::None);
        fsm.disconnected(10, None);
        assert_eq!(fsm.deadline(), Some(1010));
    }
}
