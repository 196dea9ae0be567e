//! The `bennu` program: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match bennu::cli::run(std::env::args_os()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bennu: {error:#}");
            ExitCode::FAILURE
        }
    }
}
