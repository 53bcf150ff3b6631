//! The command `ucache`.

fn main() -> std::process::ExitCode {
    ucache::cli::main()
}
