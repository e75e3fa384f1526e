//! `portcullis completions`: what a shell completes after `portcullis`.

use clap::Command;
use clap_complete::Shell;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis completions bash >/usr/share/bash-completion/completions/portcullis
  portcullis completions zsh >/usr/share/zsh/vendor-completions/_portcullis
  portcullis completions fish >/usr/share/fish/vendor_completions.d/portcullis.fish";

/// For which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Runs the command. `root` is the whole command line.
pub fn run(args: Args, root: Command, output: &Output) -> Exit {
    output.raw(&script(args.shell, root));
    Exit::Ok
}

fn script(shell: Shell, mut root: Command) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut root, "portcullis", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_completed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let root = super::super::Cli::command();
            let script = script(shell, root.clone());
            for command in root.get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("conntrack-max"), "{shell}");
        }
    }
}
