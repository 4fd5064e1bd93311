//! The `oddity` program; see [`oddity::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    oddity::cli::main()
}
