//! The help texts, as users see them: a change of one shows up in a diff, where somebody reads it.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden_help` writes them anew.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use kuration::args::Args;

#[test]
fn the_help_texts_are_the_ones_that_were_read() {
    let mut program = still(Args::command());
    program.build();
    let mut texts = vec![("kuration".to_owned(), program.clone().render_long_help().to_string())];
    for command in program.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
        texts.push((command.get_name().to_owned(), command.clone().render_long_help().to_string()));
    }

    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut stale = Vec::new();
    for (name, text) in texts {
        let text: String = text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/help-{name}.txt"));
        if update {
            fs::write(&path, &text).unwrap();
        } else if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            stale.push(format!("{}: it is now\n{text}", path.display()));
        }
    }
    assert!(stale.is_empty(), "UPDATE_GOLDEN=1 writes these anew:\n{}", stale.join("\n"));
}

/// The same text on every machine: of one width, and without the values that the environment happens to hold.
fn still(command: Command) -> Command {
    let command = command.term_width(100).mut_args(|flag| flag.hide_env_values(true));
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, still))
}
