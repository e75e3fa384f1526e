//! `recent` and `hashlimit`: what rules remember of packets, so slow that nothing depends on
//! the moment. `connlimit` forgets by the kernel's ticks, whose beginning nobody can see: it
//! is compared where nothing ends (`behaviours`).

use crate::diff::rng::Rng;
use crate::diff::rules::Place;

/// Whether rules remember something by name, which the kernel would keep from one
/// loading to the next.
pub fn is_kept(rules: &str) -> bool {
    ["-m recent", "-m hashlimit"].iter().any(|kind| rules.contains(kind))
}

/// One of them.
pub fn extension(rng: &mut Rng, place: &Place<'_>, _parts: &[String]) -> Option<String> {
    Some(if rng.chance(50) { recent(rng) } else { hashlimit(rng, place.v6) })
}

fn not(rng: &mut Rng) -> &'static str {
    if rng.chance(20) { "! " } else { "" }
}

fn recent(rng: &mut Rng) -> String {
    let bang = not(rng);
    let name = rng.below(3);
    let side = rng.pick(&["--rsource", "--rdest"]);
    let act = match rng.below(7) {
        0..3 => "--set",
        3 | 4 => "--rcheck",
        5 => "--update",
        _ => "--remove",
    };
    let mut text = format!("-m recent {bang}{act}");
    if matches!(act, "--rcheck" | "--update") {
        if rng.chance(40) {
            text += " --seconds 3600";
            if rng.chance(30) {
                text += " --reap";
            }
        }
        if rng.chance(40) {
            text += &format!(" --hitcount {}", 1 + rng.below(6));
        }
        if rng.chance(20) {
            text += " --rttl";
        }
    }
    format!("{text} --name diff{name} {side}")
}

/// Whoever names a table says the same of it.
fn hashlimit(rng: &mut Rng, v6: bool) -> String {
    let bound = rng.pick(&["upto", "above"]);
    let wide = if v6 { 64 } else { 24 };
    let (name, burst, rest) = match rng.below(4) {
        0 => (0, 3, "--hashlimit-mode srcip".to_owned()),
        1 => (1, 2, "--hashlimit-mode srcip,dstport".to_owned()),
        2 => (2, 5, format!("--hashlimit-mode dstip --hashlimit-dstmask {wide}")),
        _ => (3, 8, "--hashlimit-mode srcip,srcport,dstip,dstport".to_owned()),
    };
    let table = "--hashlimit-htable-size 64 --hashlimit-htable-expire 3600000";
    format!(
        "-m hashlimit --hashlimit-{bound} 1/hour --hashlimit-burst {burst} {rest} {table} \
         --hashlimit-name diff{name}"
    )
}
