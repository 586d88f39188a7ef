//! How fast smartvm is: as ratios to the least that the same work can take, and as figures of
//! its own processes. `cargo xtask bench` runs it with what it needs.
//!
//! Both sides of a ratio are measured in one run, in turn (A B A B), so that whatever else
//! keeps the machine busy slows both. A row is met if the median of the pairs' ratios is.

// A benchmark that can't measure may fail as loudly as a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod arguments;
mod corner;
// The host tier needs all of it.
#[allow(dead_code)]
#[path = "../../tests/host/docker_registry.rs"]
mod docker_registry;
mod figures;
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod raw_loop;
mod row;
mod rows;
mod table;

use std::process::ExitCode;

use arguments::Arguments;
use corner::Corner;

fn main() -> ExitCode {
    if rows::held::hold() {
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(refusal) => {
            eprintln_usage(&refusal);
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<_> = rows::ALL
        .iter()
        .filter(|row| arguments.includes(row.name))
        .collect();
    if arguments.list {
        for row in &chosen {
            println!("{:<16} {}", row.name, row.about);
        }
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        eprintln_usage("no row has such a name; --list shows them");
        return ExitCode::from(2);
    }
    let corner = Corner::new();
    let mut all_met = true;
    table::head(arguments.pairs);
    for row in chosen {
        let figures = (row.measure)(&corner, arguments.pairs);
        let met = row.target.is_none_or(|target| figures.judged() <= target);
        all_met &= met;
        table::line(row, &figures, met);
    }
    ExitCode::from(u8::from(!all_met))
}

fn eprintln_usage(refusal: &str) {
    use std::io::Write;
    let usage = arguments::USAGE;
    // Standard error is the last place to complain to.
    let _unheard = writeln!(std::io::stderr(), "{refusal}\n{usage}");
}
