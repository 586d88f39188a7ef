//! Tries the emulated host.
use std::process::ExitCode;
fn main() -> ExitCode {
    let mut options = smartvm_emulate::Options::new(Vec::<String>::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(a) = arguments.next() {
        match a.as_str() {
            "--write" => options.write.push(arguments.next().unwrap().into()),
            "--timeout" => {
                options.timeout = Some(std::time::Duration::from_secs(
                    arguments.next().unwrap().parse().unwrap(),
                ))
            }
            "--" => {
                options.command = arguments.collect();
                break;
            }
            x => panic!("{x}"),
        }
    }
    match smartvm_emulate::run(&options) {
        Ok(s) => ExitCode::from(s),
        Err(e) => {
            eprintln!("{e:?}");
            ExitCode::from(125)
        }
    }
}
