//! One file per command: parses, calls, prints, maps errors to messages and exit codes.

/// Runs the command line and says how it ended.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
