//! The command line of the `ipset` tool.

use super::listing::order;
use super::{Form, line, parse};

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn options_may_stand_anywhere() {
    let parsed = parse(words("-! add blocked 192.0.2.1 --socket /x timeout 5 --json"), false);
    let parsed = parsed.unwrap();
    assert_eq!(parsed.words, words("add blocked 192.0.2.1 timeout 5"));
    assert!(parsed.options.exist && parsed.json);
    assert_eq!(parsed.socket, "/x");
    let parsed = parse(words("list -t -s a -o save -f out"), false).unwrap();
    assert_eq!(parsed.words, words("list a"));
    assert!(parsed.options.terse && parsed.options.sorted);
    assert_eq!(parsed.options.form, Some(Form::Save));
    assert_eq!(parsed.options.file.as_deref(), Some("out"));
    let refused = parse(words("list -o xml"), false).unwrap_err();
    assert!(refused.contains("xml") && refused.contains("save"), "{refused}");
    assert!(parse(words("add a 1.1.1.1 --socket"), false).is_err());
}

#[test]
fn arguments_stay_whole_words() {
    let words = ["add", "a", "192.0.2.1", "comment", "two words"].map(str::to_owned);
    assert_eq!(line(&words).unwrap(), "add a 192.0.2.1 comment \"two words\"");
    assert!(line(&["say \"hi\"".to_owned()]).is_err());
    assert!(line(&["two\nlines".to_owned()]).is_err());
}

#[test]
fn elements_sort_by_number() {
    let mut elements = ["10.0.0.10,tcp:80", "10.0.0.9,tcp:443", "10.0.0.9,tcp:80", "9.0.0.0/8"];
    elements.sort_by_cached_key(|element| order(element));
    assert_eq!(elements, ["9.0.0.0/8", "10.0.0.9,tcp:80", "10.0.0.9,tcp:443", "10.0.0.10,tcp:80"]);
}
