//! The door: parse, run, one exit code.

use std::process::ExitCode;

use clap::Parser;
use kuration::args::{Args, Command, KubectlArgs, KubectlCreateArgs, Role};
use kuration::settings::Settings;
use kuration::{backend, mount, run};

fn main() -> ExitCode {
    // kubectl finds a plugin by its file's name: a link is enough to install it.
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let done = match name.as_deref().and_then(|name| name.file_stem()?.to_str()) {
        Some("kubectl-kuration") => run::kubectl(KubectlArgs::parse()),
        Some("kubectl-create-inspectiontask") => run::kubectl(KubectlCreateArgs::parse().into()),
        _ => command(Args::parse().command),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kuration: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> run::Done {
    let worked = |done: std::io::Result<()>| done.map(|()| true).map_err(Into::into);
    match command {
        Command::Controller(args) => run::driver(Settings::controller(args)),
        Command::Node(args) => run::driver(Settings::node(args)),
        Command::All(args) => run::driver(Settings::all(args)),
        Command::Try(args) => run::attempt(args),
        Command::Bench(args) => run::measure(args),
        Command::Report(args) => run::report(args),
        Command::Kubectl(args) => run::kubectl(args),
        Command::Worker(args) => worked(match args.role {
            Role::Share => backend::share::work(),
            Role::Mount => mount::work(),
        }),
    }
}
