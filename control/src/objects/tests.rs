//! Tests of objects: what they become, how far they are exposed, where their faults are.

use dataplane::clock::Nanos;

use super::{Kind, read};
use crate::diagnostics::{Code, has_errors};
use crate::ipset::{self, Stage};
use crate::iptables::TableNames;

const PARTNERS: &str = "# who may order
type: addresses
owner: anna
ticket: NET-12
review: 2027-06-01
description: partner companies
stages: internal, partner, public
exposed: partner

192.0.2.7            # ours
[internal]
10.0.0.0/8
[partner]
  203.0.113.0/24
2001:db8:7::/48
[public]
198.51.100.0/24
";

fn members(text: &str, file: &str) -> Vec<String> {
    let mut stage = Stage::empty(0, Nanos(0));
    let names = TableNames::well_known();
    let findings = ipset::read(&mut stage, text.as_bytes(), file, &names);
    assert!(!has_errors(&findings), "{findings:?}");
    let registry = stage.into_registry();
    let mut out = String::new();
    for slot in registry.list() {
        let mut write = |piece: &str| {
            out.push_str(piece);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = ipset::print::save(&slot.name(), &slot.set(), &names, Nanos(0), &mut write);
    }
    let mut lines: Vec<String> =
        out.lines().filter(|line| line.starts_with("add")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn an_object_becomes_sets_as_far_as_it_is_exposed() {
    let object = read(PARTNERS, "/etc/objects/partners.object").unwrap();
    assert_eq!((&*object.name, object.kind, &*object.owner), ("partners", Kind::Addresses, "anna"));
    assert_eq!(object.sets(), ["partners", "partners6"]);
    let v6 = "add partners6 2001:db8:7::/48";
    let wanted =
        ["add partners 10.0.0.0/8", "add partners 192.0.2.7", "add partners 203.0.113.0/24", v6];
    assert_eq!(members(PARTNERS, "o/partners.object"), wanted);
    let internal = PARTNERS.replace("exposed: partner", "exposed: internal");
    assert_eq!(members(&internal, "o/partners.object"), wanted[..2]);
    let public = PARTNERS.replace("exposed: partner", "exposed: public");
    assert_eq!(members(&public, "o/partners.object").len(), 5);
    let ports = "type: ports\nowner: bert\n\n443\n8000-8002\n";
    let wanted = ["add web 443", "add web 8000", "add web 8001", "add web 8002"];
    assert_eq!(members(ports, "web.object"), wanted);
}

#[test]
fn faults_have_their_places() {
    let head = "type: addresses\nowner: anna\n";
    let cases: [(&str, String, Code, u32, u32); 11] = [
        ("a.object", format!("{head}\n192.0.2.300\n"), Code::BadElement, 4, 1),
        ("a.object", format!("{head}  192.0.2.0/33\n"), Code::BadElement, 3, 3),
        ("a.object", format!("{head}[public]\n"), Code::BadValue, 3, 1),
        ("a.object", format!("{head}owner: bert\n"), Code::RepeatedOption, 3, 1),
        ("a.object", format!("{head}review: soon\n"), Code::BadDate, 3, 1),
        ("a.object", format!("{head}colour: blue\n"), Code::UnknownKey, 3, 1),
        ("a.object", "type: hosts\nowner: anna\n".to_owned(), Code::BadValue, 1, 1),
        ("a.object", "type: addresses\n".to_owned(), Code::MissingOption, 0, 0),
        ("a b.object", head.to_owned(), Code::BadValue, 0, 0),
        ("a.object", format!("{head}stages: x, y\n"), Code::BadValue, 0, 0),
        ("p.object", "type: ports\nowner: anna\n443-80\n".to_owned(), Code::BadElement, 3, 1),
    ];
    for (file, text, code, line, column) in cases {
        let findings = read(&text, file).expect_err(&text);
        let first = &findings[0];
        let place = (first.code, first.line, first.column);
        let at = if line == 0 { (code, first.line, first.column) } else { (code, line, column) };
        assert_eq!(place, at, "{text}: {first:?}");
    }
}

#[test]
fn names_that_others_have_are_refused_where_they_are() {
    let mut stage = Stage::empty(0, Nanos(0));
    let names = TableNames::well_known();
    let saved = b"create partners hash:ip\n";
    assert!(ipset::read(&mut stage, saved, "saved", &names).is_empty());
    let findings = ipset::read(&mut stage, PARTNERS.as_bytes(), "o/partners.object", &names);
    let first = &findings[0];
    assert_eq!(
        (first.code, &*first.file, first.line),
        (Code::DuplicateSet, "o/partners.object", 2)
    );
    // The same member twice.
    let mut stage = Stage::empty(0, Nanos(0));
    let twice = "type: addresses\nowner: anna\n192.0.2.1\n  192.0.2.1\n";
    let findings = ipset::read(&mut stage, twice.as_bytes(), "t.object", &names);
    let first = &findings[0];
    assert_eq!((first.code, first.line, first.column), (Code::DuplicateElement, 4, 3), "{first:?}");
}
