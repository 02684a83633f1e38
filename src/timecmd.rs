//! `time/stop` and `time/warp`: tests stop the clock and move it.
//!
//! Every timer of the process follows `infra::clock`. A warp goes in steps, one a turn of the main loop, so that
//! what is due at each step happens before the next. Neighbours: `commands`. Main thread.

use crate::commands::Context;
use crate::unixctl::{Commands, Outcome};
use infra::clock;

/// Adds the commands.
pub fn add_commands(commands: &mut Commands<Context>) {
    commands.add("time/stop", "", 0..=0, |context: &mut Context, _| {
        clock::stop();
        context.switch.manager().clock_moved();
        Outcome::Now(Ok(String::new()))
    });
    commands.add("time/warp", "[large_msecs] msecs", 1..=2, |_, args| warp(args));
}

fn warp(args: &[&str]) -> Outcome<Context> {
    // As atoll(3): digits, whatever stands behind them.
    let number = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse::<i64>().ok().filter(|n| *n > 0)
    };
    let numbers: Option<Vec<i64>> = args.iter().map(|a| number(a)).collect();
    let (total, step) = match numbers.as_deref() {
        Some([all]) => (*all, *all),
        Some([total, step]) => (*total, *step),
        _ => return Outcome::Now(Err("invalid MSECS".into())),
    };
    let mut left = total;
    Outcome::Later(Box::new(move |context: &mut Context| {
        if left == 0 {
            return Some(Ok("warped".into()));
        }
        let now = step.min(left);
        left -= now;
        clock::warp(now.unsigned_abs());
        context.switch.manager().clock_moved();
        None
    }))
}
