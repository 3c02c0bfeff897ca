//! The door: parse, run, one exit code.

use std::process::ExitCode;

use clap::Parser;
use kuration::args::{Args, Command, Role};
use kuration::settings::Settings;
use kuration::{backend, mount, run, telemetry};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Controller(args) => drive(Settings::controller(args)),
        Command::Node(args) => drive(Settings::node(args)),
        Command::All(args) => drive(Settings::all(args)),
        Command::Worker(args) => match args.role {
            Role::Share => backend::share::work().map_err(Into::into),
            Role::Mount => mount::work().map_err(Into::into),
        },
        Command::Try(_) | Command::Bench(_) => Ok(()),
    };
    done.map_or_else(
        |error: Box<dyn std::error::Error>| {
            eprintln!("kuration: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
fn drive<E: std::error::Error + 'static>(settings: Result<Settings, E>) -> Result<(), Box<dyn std::error::Error>> {
    let settings = settings?;
    telemetry::logs::init(&settings.log)?;
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    rt.block_on(run::run(settings))?;
    rt.shutdown_background();
    Ok(())
}
