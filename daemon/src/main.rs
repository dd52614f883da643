//! The `obol` binary; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    obol_daemon::main()
}
