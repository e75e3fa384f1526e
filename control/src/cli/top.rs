//! `portcullis top`: the firewall at a glance, until `q`; or one frame for scripts.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::apply::time;
use super::client::{report, unexpected};
use super::{Exit, Output, Socket};
use crate::api::{Client, ClientError};
use crate::top::view::{self, KEYS, Page, Screen};
use crate::top::{Frame, Sample};

const EXAMPLES: &str = "Examples:
  portcullis top
  portcullis top --interval 5s
  portcullis top --once
  portcullis --json top --once --interval 1s | jq '.rules[:5]'

Keys:
";

/// How long a key may wait to be heard.
const HEAR: Duration = Duration::from_millis(50);
/// How long the daemon may be silent before the screen says so.
const PATIENCE: Nanos = Nanos::from_secs(3);
/// How long after a signal the screen may still take to end.
const GRACE: Duration = Duration::from_secs(1);
/// Signals that end it, the terminal given back. From the keyboard they come as keys.
const ENDING: [i32; 4] = [SIGTERM, SIGHUP, SIGINT, SIGQUIT];
/// The page that `--once` prints.
const ONCE: (u16, u16) = (100, 40);

/// How to show it.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}{KEYS}"))]
pub struct Args {
    /// How often it is asked, and over what time rates are [default: 1s].
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    pub interval: u64,
    /// Print the overview once, after an interval, and end; with --json all that is known.
    #[arg(long)]
    pub once: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

pub(super) fn interval(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no interval: write 200ms to 60s");
    time(text).filter(|ms| (200..=60_000).contains(ms)).ok_or_else(bad)
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    if args.once || output.json() {
        return match rates(args.interval, &args.socket, output) {
            Ok(()) => Exit::Ok,
            Err(exit) => exit,
        };
    }
    if !std::io::stdout().is_terminal() {
        output
            .error("standard output is no terminal: --once prints one frame, --json as an object");
        return Exit::Usage;
    }
    // Asked before the screen is taken: what is wrong now is told in plain words.
    let sample = match sample(&args.socket.socket) {
        Ok(sample) => sample,
        Err(error) => return failed(error.as_ref(), output),
    };
    let shown = on_screen(args, sample);
    match shown {
        Ok(()) => Exit::Ok,
        Err(error) => {
            output.error(error);
            Exit::Environment
        }
    }
}

/// Takes the terminal and gives it back, whatever happens; a panic gives it back too.
fn on_screen(args: &Args, sample: Sample) -> std::io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in ENDING {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let stopping = Arc::clone(&stop);
    std::thread::Builder::new().name("end".to_owned()).spawn(move || end(&stopping))?;
    let asker = Asker::start(args.socket.socket.clone())?;
    let shown = ratatui::try_init()
        .and_then(|mut terminal| show(args, &mut terminal, sample, asker, &stop));
    let _ = ratatui::try_restore();
    shown
}

/// Ends the process some time after a signal, should reading keys from a terminal that is
/// gone never return.
fn end(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(HEAR);
    }
    std::thread::sleep(GRACE);
    let _ = ratatui::try_restore();
    std::process::exit(i32::from(Exit::Environment as u8));
}

/// What the daemon counts now; `None` in the error: an answer to another question.
type Answer = Result<Sample, Option<ClientError>>;

fn sample(socket: &Path) -> Answer {
    let mut client = Client::connect(socket)?;
    Sample::take(&mut client)?.ok_or(None)
}

/// Asks on a thread of its own: keys are heard while the daemon takes its time.
struct Asker {
    questions: SyncSender<()>,
    answers: Receiver<Answer>,
    asked: Option<Nanos>,
}

impl Asker {
    fn start(socket: PathBuf) -> std::io::Result<Self> {
        let (questions, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        std::thread::Builder::new()
            .name("asker".to_owned())
            .spawn(move || while asked.recv().is_ok() && answer.send(sample(&socket)).is_ok() {})?;
        Ok(Self { questions, answers, asked: None })
    }
    /// Asks, unless an answer is still awaited.
    fn ask(&mut self, now: Nanos) {
        if self.asked.is_none() && self.questions.try_send(()).is_ok() {
            self.asked = Some(now);
        }
    }
    /// The answer, once it is there; what hinders, when it takes long.
    fn answer(&mut self, now: Nanos) -> Option<Result<Sample, String>> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.asked = None;
                Some(answer.map_err(|error| match error {
                    Some(error) => error.to_string(),
                    None => "the daemon answers another question".to_owned(),
                }))
            }
            Err(TryRecvError::Disconnected) => Some(Err("nobody asks any more".to_owned())),
            Err(TryRecvError::Empty) => {
                let waited = now.saturating_sub(self.asked?);
                let long = format!("no answer for {} s", waited.0 / Nanos::from_secs(1).0);
                (waited >= PATIENCE).then_some(Err(long))
            }
        }
    }
}

fn failed(error: Option<&ClientError>, output: &Output) -> Exit {
    error.map_or_else(|| unexpected(output), |error| report(error, &[], output))
}

/// One frame: text, or JSON.
pub(super) fn rates(interval_ms: u64, socket: &Socket, output: &Output) -> Result<(), Exit> {
    let two = || -> Result<_, Option<ClientError>> {
        let before = sample(&socket.socket)?;
        std::thread::sleep(Duration::from_millis(interval_ms));
        Ok((before, sample(&socket.socket)?))
    };
    let (before, now) = two().map_err(|error| failed(error.as_ref(), output))?;
    let frame = Frame::between(&before, &now);
    if output.json() {
        output.object(&frame);
        return Ok(());
    }
    let (width, height) = ONCE;
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|area| view::draw(area, &frame, &Screen::default()));
    let buffer = terminal.backend().buffer();
    for row in 0..height - 1 {
        let line: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        if !line.trim().is_empty() {
            output.line(line.trim_end());
        }
    }
    Ok(())
}

/// Draws until a key or a signal ends it.
fn show(
    args: &Args,
    terminal: &mut ratatui::DefaultTerminal,
    first: Sample,
    mut asker: Asker,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let every = Nanos(args.interval * Nanos::MILLISECOND.0);
    let mut screen = Screen::default();
    let mut frame = Frame::between(&first, &first);
    let (mut before, mut due) = (first, monotonic() + every);
    screen.note(&frame);
    terminal.draw(|area| view::draw(area, &frame, &screen))?;
    while !stop.load(Ordering::Relaxed) {
        let mut news = false;
        if event::poll(HEAR)? {
            match event::read()? {
                Event::Key(key) if !heard(&mut screen, &frame, key) => return Ok(()),
                _ => news = true,
            }
        }
        let now = monotonic();
        if now >= due && !screen.paused {
            due = now + every;
            asker.ask(now);
        }
        match asker.answer(now) {
            // An answer to what was asked before the pause waits for nobody.
            Some(Ok(_)) if screen.paused => {}
            Some(Ok(sample)) => {
                frame = Frame::between(&before, &sample);
                before = sample;
                screen.trouble = None;
                screen.note(&frame);
                screen.keep_within(&frame);
                news = true;
            }
            Some(Err(trouble)) if screen.trouble.as_ref() != Some(&trouble) => {
                screen.trouble = Some(trouble);
                news = true;
            }
            Some(Err(_)) | None => {}
        }
        if news {
            terminal.draw(|area| view::draw(area, &frame, &screen))?;
        }
    }
    Ok(())
}

/// Does what a key says; false: it is to end.
fn heard(screen: &mut Screen, frame: &Frame, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') => return false,
        KeyCode::Esc if !screen.help => return false,
        KeyCode::Esc => screen.help = false,
        KeyCode::Char('1' | 'o') => screen.open(Page::Overview),
        KeyCode::Char('2' | 'r') => screen.open(Page::Rules),
        KeyCode::Char('3' | 's') => screen.open(Page::Sources),
        KeyCode::Tab => screen.turn(),
        KeyCode::Down | KeyCode::Char('j') => {
            screen.skipped += 1;
            screen.keep_within(frame);
        }
        KeyCode::Up | KeyCode::Char('k') => screen.skipped = screen.skipped.saturating_sub(1),
        KeyCode::Char(' ') => screen.paused = !screen.paused,
        KeyCode::Char('h' | '?') => screen.help = !screen.help,
        _ => {}
    }
    true
}
