//! The management list in the maps.

use dataplane::port::afxdp::{Config, open};
use dataplane::port::management::List;

use crate::lab::{Lab, inside};
use crate::{alone, routed};

#[test]
fn the_largest_list_fits_twice() {
    let _alone = alone();
    let lab = Lab::new(1);
    let full = |base: u16| {
        let entries = (0..64_u16).map(|at| {
            let first = base + at * 64;
            format!("10.{at}.0.0/16 tcp {first}-{}", first + 63).parse().expect("an entry")
        });
        List::new(entries).expect("it is possible")
    };
    let config = Config { management: full(1), ..routed(&["f0"]) };
    let mut opened = inside(&lab.boxed(), || open(&config, [])).expect("the box opens");
    for base in [10_000, 20_000, 1] {
        opened.program.set_management(&full(base)).expect("there is room for two");
    }
    assert_eq!(opened.program.management().expect("counts").len(), 64);
}
