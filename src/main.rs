//! The door: parse, run, one exit code.

use std::process::ExitCode;

use kuration::args::{self, Command, Role};
use kuration::settings::Settings;
use kuration::{backend, inspection, mount, run};

fn main() -> ExitCode {
    let worked = |done: std::io::Result<()>| done.map(|()| true).map_err(Into::into);
    let done = match args::command() {
        Command::Controller(args) => run::driver(Settings::controller(args)),
        Command::Node(args) => run::driver(Settings::node(args)),
        Command::All(args) => run::driver(Settings::all(args)),
        Command::Try(args) => run::attempt(args),
        Command::Bench(args) => run::measure(args),
        Command::Inspector(args) => run::inspector(args),
        Command::Crd(args) => run::definition(args.run_schema),
        Command::Inspect(args) => run::inspect(args),
        Command::Report(args) => run::report(args),
        Command::Kubectl(args) => run::kubectl(args),
        Command::Exec(args) => worked(run::aside(args)),
        Command::Worker(args) => worked(match args.role {
            Role::Share => backend::share::work(),
            Role::Mount => mount::work(),
            Role::Results => inspection::results::work(),
        }),
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
