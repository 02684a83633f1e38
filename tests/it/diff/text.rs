//! Takes out of what the tools print that which may differ between two runs of the same program: times,
//! transaction ids, orders nobody promises. Everything else stays.
//!
//! Neighbours: `side`. Threads: none.

/// Removes `key=value` up to the next comma or blank, with the separator after it.
fn without(line: &str, key: &str) -> String {
    let Some(at) = line.find(key) else { return line.to_string() };
    let rest = &line[at + key.len()..];
    let end = rest.find([',', ' ']).unwrap_or(rest.len());
    let after = rest[end..].trim_start_matches(',').trim_start();
    format!("{}{}", &line[..at], after)
}

/// Replaces the value after `key` up to a character that ends it.
fn blank(line: &str, key: &str, stop: &[char]) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(key) {
        let after = &rest[at + key.len()..];
        let end = after.find(stop).unwrap_or(after.len());
        out.push_str(&rest[..at + key.len()]);
        out.push('?');
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// A log line on standard error without its time and number.
fn log_line(line: &str) -> String {
    match line.split_once('|') {
        Some((time, rest)) if time.ends_with('Z') && time.contains('T') => {
            rest.split_once('|').map_or(rest, |(_, text)| text).to_string()
        }
        _ => line.to_string(),
    }
}

/// The line with every UUID replaced.
fn uuids(line: &str) -> String {
    let dashes = [8, 13, 18, 23];
    let is_uuid = |s: &[u8]| {
        s.iter()
            .enumerate()
            .all(|(i, c)| if dashes.contains(&i) { *c == b'-' } else { c.is_ascii_hexdigit() })
    };
    let (bytes, mut out, mut i) = (line.as_bytes(), Vec::new(), 0);
    while i < bytes.len() {
        if bytes.get(i..i + 36).is_some_and(is_uuid) {
            out.extend(b"UUID");
            i += 36;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Common to all outputs. Whether a tool that is refused sees the refusal or the closed connection first is
/// chance.
pub fn common(text: &str, dir: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = log_line(&line.replace(dir, "DIR"));
        let line = blank(&line, "xid=", &[')', ':', ' ', ',']);
        let key = if line.contains("FLOW_REMOVED") { " duration" } else { "duration=" };
        let line = blank(&line, key, &['s']);
        let line = blank(&line, "time=", &[' ']);
        let line = uuids(&line).replace("(Broken pipe)", "(Protocol error)");
        let line = without(&without(&line, "idle_age="), "hard_age=");
        let line = blank(&line, "ovs-vswitchd.", &['.']);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The same with lines sorted, for dumps without a promised order.
pub fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The flows of the datapath: which thread holds a flow, when it was last used and the number of a frozen
/// translation may differ.
pub fn datapath(text: &str) -> String {
    let text = blank(text, "recirc_id=", &[',']);
    let lines = text.lines().filter(|line| !line.starts_with("flow-dump from"));
    let text: String = lines.map(|line| blank_used(line) + "\n").collect();
    sorted(&text)
}

fn blank_used(line: &str) -> String {
    if line.contains("used:never") {
        return line.to_string();
    }
    blank(line, "used:", &[',', ' '])
}

/// `fdb/show` without the age, in the order of its text.
pub fn fdb(text: &str) -> String {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let rows: String = lines
        .map(|line| line.rsplit_once(' ').map_or(line, |(row, _age)| row.trim_end()).to_string() + "\n")
        .collect();
    format!("{head}\n{}", sorted(&rows))
}

/// Lines that start with many blanks continue the line before; then in the order of the text.
pub fn joined(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if !line.starts_with("      ") && !out.is_empty() {
            out.push('\n');
        } else if !out.is_empty() {
            out.push(',');
        }
        out.push_str(line);
    }
    sorted(&out)
}

/// What has changed from `before` to `after`: numbers as differences where the rest of the line is the same.
pub fn delta(before: &str, after: &str) -> String {
    let old: Vec<&str> = before.lines().collect();
    let mut out = String::new();
    for line in after.lines() {
        let shape = |l: &str| l.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        match old.iter().find(|o| shape(o) == shape(line) && same_name(o, line)) {
            Some(o) => out.push_str(&subtract(o, line)),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Lines speak of the same thing if all before the first `=` or `:` is the same.
fn same_name(a: &str, b: &str) -> bool {
    let name = |l: &str| l.split(['=', ':']).next().map(str::to_string);
    name(a) == name(b)
}

fn subtract(old: &str, new: &str) -> String {
    let numbers = |l: &str| -> Vec<i128> {
        l.split(|c: char| !c.is_ascii_digit())
            .filter(|t| !t.is_empty())
            .map(|t| t.parse().unwrap_or(0))
            .collect()
    };
    let (a, b) = (numbers(old), numbers(new));
    let (mut out, mut i, mut inside, mut named) = (String::new(), 0, false, false);
    for c in new.chars() {
        named |= c == '=' || c == ':';
        if !c.is_ascii_digit() {
            inside = false;
            out.push(c);
        } else if !named {
            // The name of the thing itself holds a number.
            i += usize::from(!inside);
            inside = true;
            out.push(c);
        } else if !inside {
            inside = true;
            out.push_str(&(b[i] - a[i]).to_string());
            i += 1;
        }
    }
    out
}

#[test]
fn volatile_parts_go() {
    let line = " cookie=0x0, duration=1.234s, table=0, n_packets=1, n_bytes=60, idle_age=3, hard_age=4, ip actions=drop";
    assert_eq!(
        common(line, "/x"),
        " cookie=0x0, duration=?s, table=0, n_packets=1, n_bytes=60, ip actions=drop\n"
    );
    assert_eq!(common("2026-01-01T00:00:00Z|00003|m|WARN|bad", "/x"), "m|WARN|bad\n");
    assert_eq!(
        delta("port 1: rx pkts=3, bytes=180\n", "port 1: rx pkts=5, bytes=300\n"),
        "port 1: rx pkts=2, bytes=120\n"
    );
    assert_eq!(datapath("flow-dump from x:\nb used:0.1s, x\na used:never\n"), "a used:never\nb used:?, x\n");
}
