//! The guest program: as the initramfs's `/init` it brings the guest up; as its own child it
//! serves the host.

mod init;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    // As process 1 the arguments are the kernel's words for the root's own init.
    if std::process::id() == 1 {
        init::run();
    }
    let rest: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    if let Some(service) = init::Service::from_arguments(&rest) {
        return service.run();
    }
    let version = env!("CARGO_PKG_VERSION");
    if rest == ["--version"] {
        #[allow(clippy::print_stdout)] // the answer to the question
        {
            println!("smartvm-agent {version}");
        }
        return ExitCode::SUCCESS;
    }
    #[allow(clippy::print_stderr)] // for whoever starts it by hand
    {
        eprintln!(
            "smartvm-agent {version}: the guest side of smartvm. It runs as the init of an \
             initramfs, and is of no use on its own."
        );
    }
    ExitCode::from(2)
}
