//! `show nfacct`.

use std::fmt::Write as _;

use super::{Exit, Output, ask, unexpected};
use crate::api::protocol::AccountEntry;
use crate::api::{Request, Response};
use crate::cli::Socket;

/// What to do with them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Begin again from zero; what is shown is what was counted until then.
    #[arg(long)]
    pub reset: bool,
}

/// Asks and prints.
pub(super) fn show(args: &Args, socket: &Socket, output: &Output) -> Result<(), Exit> {
    let response = ask(socket, Request::ShowAccounts { reset: args.reset }, output)?;
    let Response::Accounts { entries } = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&response);
    } else {
        output.raw(&render(entries));
    }
    Ok(())
}

/// As `nfacct list` prints them.
fn render(entries: &[AccountEntry]) -> String {
    entries.iter().fold(String::new(), |mut text, AccountEntry { name, packets, bytes }| {
        let _ = writeln!(text, "{{ pkts = {packets:020}, bytes = {bytes:020} }} = {name};");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_look_as_nfacct_shows_them() {
        let entry = AccountEntry { name: "web".to_owned(), packets: 7, bytes: 420 };
        let line =
            "{ pkts = 00000000000000000007, bytes = 00000000000000000420 } = web;\n".to_owned();
        assert_eq!(render(&[entry]), line);
    }
}
