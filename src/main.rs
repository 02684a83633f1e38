//! ovs-vswitchd: argv -> build objects -> run -> exit code.

fn main() {}
