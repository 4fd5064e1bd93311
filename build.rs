//! Generates the prost types of `proto/`. The compiler is protox, so no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        ["proto/remote_write_v1.proto", "proto/remote_write_v2.proto", "proto/remote_read.proto"],
        ["proto"],
    )?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
