//! `report`: what the other commands measured, as `docs/performance.md` and its
//! plots. The same lines give the same bytes.

mod budgets;
mod lines;
mod machine;
mod notes;
mod plots;
mod tables;

use std::path::PathBuf;

use lines::Lines;
use machine::Machine;
use notes::Notes;

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of JSON lines; `NAME-anything.jsonl` holds lines of command NAME where
    /// the lines do not say so themselves.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What is written by hand: texts, and why a budget is missed.
    #[arg(long, default_value = "docs/performance/notes.toml")]
    notes: PathBuf,
    /// The page; plots go into the folder of its name without the suffix.
    #[arg(long, default_value = "docs/performance.md")]
    out: PathBuf,
}

/// Reads the lines and writes the page and the plots.
///
/// # Errors
/// A line that no command prints, with file and number; a file that cannot be read or written.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let lines = Lines::read(&args.files)?;
    let notes = match std::fs::read_to_string(&args.notes) {
        Ok(text) => Notes::parse(&text).map_err(|e| format!("{}: {e}", args.notes.display()))?,
        Err(_) => Notes::default(),
    };
    let rows = budgets::judge(&lines);
    let folder = args.out.with_extension("");
    std::fs::create_dir_all(&folder)?;
    let mut plots = Vec::new();
    for plot in plots::all(&lines) {
        std::fs::write(folder.join(format!("{}.svg", plot.name)), plot.draw()?)?;
        plots.push(plot);
    }
    let page = tables::page(&lines, &rows, &notes, &plots, &Machine::here())?;
    std::fs::write(&args.out, page)?;
    for row in &rows {
        eprintln!("{:>12}  {}: {}", row.verdict(), row.what, row.measured_text());
    }
    Ok(())
}
