//! `portcullis man`: manual pages, made from what `--help` is made from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis man | man -l -
  portcullis man show rules | man -l -
  portcullis man --dir /usr/local/share/man/man1";

/// Which pages.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write every page, one for each command, into this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub dir: Option<PathBuf>,
    /// Print the page of this command [default: of portcullis itself].
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs the command. `root` is the whole command line.
pub fn run(args: Args, root: Command, output: &Output) -> Exit {
    let root = built(root);
    if let Some(directory) = &args.dir {
        return match write_all(&root, directory) {
            Ok(pages) => {
                let directory = directory.display();
                output.line(format_args!("{pages} pages in {directory}"));
                Exit::Ok
            }
            Err(error) => {
                output.error(format_args!("{}: {error}", directory.display()));
                Exit::Environment
            }
        };
    }
    let mut command = &root;
    for word in &args.command {
        let Some(found) = command.find_subcommand(word) else {
            output.error(format_args!("{} has no command {word}", command.get_name()));
            return Exit::Usage;
        };
        command = found;
    }
    match page(command) {
        Ok(page) => {
            output.raw(&page);
            Exit::Ok
        }
        Err(error) => {
            output.error(error);
            Exit::Internal
        }
    }
}

/// The command line with everything that clap adds, so that pages have their full names.
fn built(root: Command) -> Command {
    let mut root = root.disable_help_subcommand(true);
    root.build();
    root
}

/// One page, as troff.
fn page(command: &Command) -> io::Result<String> {
    let version = concat!("portcullis ", env!("CARGO_PKG_VERSION"));
    let mut text = Vec::new();
    // No date: the same source gives the same page.
    Man::new(command.clone()).manual("Portcullis").source(version).date("").render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes the pages of a command and of all below it; returns how many.
fn write_all(command: &Command, directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    let below: io::Result<usize> = below.map(|command| write_all(command, directory)).sum();
    let name = command.get_display_name().unwrap_or(command.get_name());
    fs::write(directory.join(format!("{name}.1")), page(command)?)?;
    Ok(below? + 1)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Troff's escapes taken out.
    fn plain(page: &str) -> String {
        page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
    }

    #[test]
    fn every_command_has_a_page_with_every_flag() {
        let root = built(super::super::Cli::command());
        let directory = std::env::temp_dir().join(format!("portcullis-man-{}", std::process::id()));
        let pages = write_all(&root, &directory).unwrap();
        let mut seen = 0;
        let mut todo = vec![&root];
        while let Some(command) = todo.pop() {
            todo.extend(command.get_subcommands());
            seen += 1;
            let name = command.get_display_name().unwrap_or("portcullis");
            let page = plain(&fs::read_to_string(directory.join(format!("{name}.1"))).unwrap());
            assert!(page.contains("Example"), "{name} without an example");
            for sub in command.get_subcommands() {
                let full = format!("{name}-{}(1)", sub.get_name());
                assert!(page.contains(&full), "{name} without {full}");
            }
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let flag = match (argument.get_long(), argument.get_value_names()) {
                    (Some(long), _) => format!("--{long}"),
                    (None, Some([value, ..])) => value.to_string(),
                    (None, _) => continue,
                };
                assert!(page.contains(&flag), "{name} without {flag}:\n{page}");
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{name} {flag} says nothing of itself");
            }
        }
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(pages, seen);
        assert!(pages > 10, "{pages}");
    }

    #[test]
    fn a_page_is_the_same_each_time() {
        let root = built(super::super::Cli::command());
        let run = root.find_subcommand("run").unwrap();
        assert_eq!(page(run).unwrap(), page(run).unwrap());
        assert!(page(run).unwrap().contains("portcullis\\-run"));
    }
}
