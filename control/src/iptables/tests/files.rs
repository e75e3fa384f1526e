//! Whole files: what they become, and where exactly they are refused.

use dataplane::packet::Family;

use super::{load, reprint};
use crate::diagnostics::{Code, Severity};
use crate::iptables::{TableNames, parse_bytes};

/// Text of the filter table from its first user chain or rule on.
fn body(text: &str) -> Option<String> {
    let printed = reprint(text, Family::V4)?;
    let lines: Vec<&str> = printed
        .lines()
        .filter(|line| {
            !matches!(
                *line,
                "*filter"
                    | ":INPUT ACCEPT [0:0]"
                    | ":FORWARD ACCEPT [0:0]"
                    | ":OUTPUT ACCEPT [0:0]"
                    | "COMMIT"
            )
        })
        .collect();
    Some(lines.join("; "))
}

#[track_caller]
fn accepts(text: &str, expected: &str) {
    match load(text, Family::V4) {
        Ok(_) => assert_eq!(body(text).unwrap(), expected, "{text:?}"),
        Err(findings) => panic!("{text:?} refused: {findings:?}"),
    }
}

/// The errors of a text, as code and place.
fn errors(text: &str) -> Vec<(Code, u32, u32)> {
    let findings = match load(text, Family::V4) {
        Ok(parsed) => parsed.findings,
        Err(findings) => findings,
    };
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| (finding.code, finding.line, finding.column)).collect()
}

#[track_caller]
fn refuses(text: &str, code: Code, line: u32, column: u32) {
    assert_eq!(errors(text), [(code, line, column)], "{text:?}");
}

#[test]
fn file_grammar() {
    accepts("* filter\n-A INPUT -j DROP\nCOMMIT\n", "-A INPUT -j DROP");
    accepts("# c\n\n*filter extra\n  -A   INPUT\t-j DROP  \n\n#x\nCOMMIT", "-A INPUT -j DROP");
    accepts("*filter\r\n:INPUT ACCEPT [0:0]\r\n-A INPUT -j DROP\r\nCOMMIT\r\n", "-A INPUT -j DROP");
    accepts("*filter\n   \n-A INPUT\nCOMMIT\n", "-A INPUT");
    accepts("", "");
    accepts("*filter\n: U -\nCOMMIT\n", ":U - [0:0]");
    accepts("*filter\n:INPUT -\nCOMMIT\n", "");
    accepts("*filter\n:INPUT DROP\nCOMMIT\n", ":INPUT DROP [0:0]");
    accepts("*filter\n:INPUT DROP [0:0] x\nCOMMIT\n", ":INPUT DROP [0:0]");
    accepts("*filter\n:INPUT DROP [a:b]\nCOMMIT\n", ":INPUT DROP [0:0]");
    accepts(
        "*filter\n-A INPUT -j DROP\n:INPUT DROP [0:0]\nCOMMIT\n",
        ":INPUT DROP [0:0]; -A INPUT -j DROP",
    );
    accepts("*filter\n:NF [0:0]\nCOMMIT\n", ":NF - [0:0]");
    accepts(
        "*filter\n:b - [0:0]\n:a - [0:0]\n:B - [0:0]\n:10 - [0:0]\n:_ - [0:0]\n-N aa\nCOMMIT\n",
        ":10 - [0:0]; :B - [0:0]; :_ - [0:0]; :a - [0:0]; :aa - [0:0]; :b - [0:0]",
    );
    accepts("*filter\n:PREROUTING - [0:0]\nCOMMIT\n", ":PREROUTING - [0:0]");
    accepts(
        "*filter\n:~log0 -\n:@net-all -\n-A INPUT -j ~log0\n-A INPUT -g @net-all\nCOMMIT\n",
        ":@net-all - [0:0]; :~log0 - [0:0]; -A INPUT -j ~log0; -A INPUT -g @net-all",
    );
    accepts("*filter\n:LOG - [0:0]\n-A INPUT -j LOG\nCOMMIT\n", ":LOG - [0:0]; -A INPUT -j LOG");
}

#[test]
fn a_second_table_replaces_the_first_except_policies() {
    accepts(
        "*filter\n:INPUT DROP [0:0]\n:old -\n-A INPUT -j old\nCOMMIT\n*filter\n-A INPUT\nCOMMIT\n",
        ":INPUT DROP [0:0]; -A INPUT",
    );
    refuses(
        "*filter\n:a - [0:0]\nCOMMIT\n*filter\n-A INPUT -j a\nCOMMIT\n",
        Code::MissingChain,
        5,
        13,
    );
}

#[test]
fn commands_inside_a_table() {
    accepts(
        "*filter\n-A INPUT -j DROP\n-I INPUT -j ACCEPT\n-I INPUT 2 -j LOG\n-I INPUT 4 -j RETURN\n\
         -D INPUT 1\n-R INPUT 1 -s 1.1.1.1\nCOMMIT\n",
        "-A INPUT -s 1.1.1.1/32; -A INPUT -j DROP; -A INPUT -j RETURN",
    );
    accepts("*filter\n-A INPUT -j DROP\n-I INPUT 2\nCOMMIT\n", "-A INPUT -j DROP; -A INPUT");
    accepts(
        "*filter\n-A INPUT -p tcp --dport 22\n-D INPUT -p tcp -m tcp --dport ssh\nCOMMIT\n",
        "",
    );
    accepts(
        "*filter\n-A INPUT -j DROP\n-A INPUT -j DROP\n-D INPUT -j DROP\nCOMMIT\n",
        "-A INPUT -j DROP",
    );
    accepts("*filter\n-A INPUT -s 1.1.1.1,2.2.2.2\n-D INPUT -s 1.1.1.1,2.2.2.2\nCOMMIT\n", "");
    accepts(
        "*filter\n-A INPUT -j DROP\n-C INPUT -j DROP\n-L INPUT\n-S\nCOMMIT\n",
        "-A INPUT -j DROP",
    );
    accepts("*filter\n[5:6] -A INPUT -j DROP\n-Z\nCOMMIT\n", "-A INPUT -j DROP");
    accepts("*filter\n-N V\n-A V -j DROP\n-F V\n-X V\nCOMMIT\n", "");
    accepts("*filter\n-N V\n-A V -j DROP\n-F\n-X\nCOMMIT\n", "");
    accepts("*filter\n:a -\n-A INPUT -j a\n-E a b\nCOMMIT\n", ":b - [0:0]; -A INPUT -j b");
    accepts("*filter\n-P INPUT DROP\n-P INPUT ACCEPT\n-X\n-F\n-Z\nCOMMIT\n", "");
}

#[test]
fn refused_commands() {
    for (line, code, column) in [
        ("-I INPUT 2 -j ACCEPT", Code::NoSuchRule, 4),
        ("-I INPUT 0 -j ACCEPT", Code::BadValue, 10),
        ("-I INPUT x -j ACCEPT", Code::BadValue, 10),
        ("-D INPUT -j ACCEPT", Code::NoSuchRule, 1),
        ("-C INPUT -j ACCEPT", Code::NoSuchRule, 1),
        ("-D INPUT 1", Code::NoSuchRule, 4),
        ("-R INPUT 1 -j DROP", Code::NoSuchRule, 4),
        ("-R INPUT -j DROP", Code::BadCommand, 1),
        ("-R INPUT 1 -s 1.1.1.1,2.2.2.2", Code::BadCommand, 1),
        ("-P U DROP", Code::MissingChain, 4),
        ("-P INPUT REJECT", Code::BadPolicy, 10),
        ("-P INPUT", Code::BadPolicy, 1),
        ("-N INPUT", Code::DuplicateChain, 4),
        ("-N ACCEPT", Code::BadChainName, 4),
        ("-N LOG", Code::BadChainName, 4),
        ("-N -a", Code::BadChainName, 4),
        ("-N abcdefghijklmnopqrstuvwxyz123", Code::BadChainName, 4),
        ("-N a b", Code::UnexpectedText, 6),
        ("-E INPUT b", Code::ChainInUse, 4),
        ("-E nope b", Code::MissingChain, 4),
        ("-X INPUT", Code::ChainInUse, 4),
        ("-X nope", Code::MissingChain, 4),
        ("-F nope", Code::MissingChain, 4),
        ("-Z nope", Code::MissingChain, 4),
        ("-F INPUT -s 1.2.3.4", Code::BadCommand, 10),
        ("-A NOPE -j DROP", Code::MissingChain, 4),
        ("-A INPUT -j V\n:V - [0:0]", Code::MissingChain, 13),
        ("-j DROP", Code::BadCommand, 1),
        ("-A INPUT -A FORWARD", Code::BadCommand, 10),
        ("-A", Code::MissingOption, 1),
    ] {
        refuses(&format!("*filter\n{line}\nCOMMIT\n"), code, 2, column);
    }
    refuses("*filter\n-N V\n-A V -j DROP\n-X V\nCOMMIT\n", Code::ChainInUse, 4, 4);
    refuses("*filter\n-N V\n-A INPUT -j V\n-X V\nCOMMIT\n", Code::ChainInUse, 4, 4);
    refuses("*filter\n-N V\n-A V -j DROP\n-X\nCOMMIT\n", Code::ChainInUse, 2, 4);
}

#[test]
fn refused_files() {
    refuses("*filter\n-A INPUT -j DROP", Code::MissingCommit, 2, 1);
    refuses("*filter\n-A INPUT\n*nat\nCOMMIT\n", Code::MissingCommit, 3, 1);
    refuses("*filter\nCOMMIT now\n", Code::UnexpectedText, 2, 8);
    refuses("*filter\n COMMIT\n", Code::UnexpectedText, 2, 2);
    refuses("COMMIT\n", Code::UnexpectedText, 1, 1);
    refuses("-A INPUT\n*filter\nCOMMIT\n", Code::UnexpectedText, 1, 1);
    refuses("*filter\nCOMMIT\nCOMMIT\n", Code::UnexpectedText, 3, 1);
    refuses(" *filter\n", Code::UnexpectedText, 1, 1);
    refuses("*nope\n-A X -j Y\nCOMMIT\n", Code::UnknownTable, 1, 2);
    refuses("*\nCOMMIT\n", Code::UnknownTable, 1, 1);
    refuses("*filter\n:INPUT\nCOMMIT\n", Code::BadPolicy, 2, 2);
    refuses("*filter\n:INPUT [0:0]\nCOMMIT\n", Code::BadPolicy, 2, 8);
    refuses("*filter\n:INPUT QUEUE [0:0]\nCOMMIT\n", Code::BadPolicy, 2, 8);
    refuses("*filter\n:U DROP [0:0]\nCOMMIT\n", Code::BadPolicy, 2, 4);
    refuses("*filter\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", Code::BadPolicy, 2, 13);
    refuses("*filter\n:U -\n:U -\nCOMMIT\n", Code::DuplicateChain, 3, 2);
    refuses("*filter\n:ACCEPT -\nCOMMIT\n", Code::BadChainName, 2, 2);
    refuses("*filter\n:!a -\nCOMMIT\n", Code::BadChainName, 2, 2);
    refuses("*filter\n:abcdefghijklmnopqrstuvwxyz123 -\nCOMMIT\n", Code::BadChainName, 2, 2);
    refuses("*filter\n:\nCOMMIT\n", Code::BadChainName, 2, 1);
    refuses(
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n",
        Code::WrongTable,
        3,
        18,
    );
    refuses("*mangle\n-A INPUT -j REJECT\nCOMMIT\n", Code::WrongTable, 2, 13);
    refuses(
        "*filter\n-A INPUT -m comment --comment \"a b\nCOMMIT\n",
        Code::UnterminatedQuote,
        2,
        31,
    );
}

#[test]
fn loops_are_refused_wherever_they_are() {
    refuses("*filter\n:A -\n-A A -j A\nCOMMIT\n", Code::JumpLoop, 3, 9);
    refuses("*filter\n:A -\n-A A -g A\n-A INPUT -j A\nCOMMIT\n", Code::JumpLoop, 3, 9);
    refuses(
        "*filter\n:A -\n:B -\n:C -\n-A A -j B\n-A B -j C\n-A C -p tcp -j A\nCOMMIT\n",
        Code::JumpLoop,
        7,
        16,
    );
    // A diamond is no loop.
    accepts(
        "*filter\n:A -\n:B -\n-A A -j B\n-A A -j B\n-A INPUT -j A\n-A INPUT -j B\nCOMMIT\n",
        ":A - [0:0]; :B - [0:0]; -A INPUT -j A; -A INPUT -j B; -A A -j B; -A A -j B",
    );
}

#[test]
fn deep_trees_are_no_trouble() {
    let mut text = "*filter\n".to_string();
    (0..20_000).for_each(|n| text.push_str(&format!(":c{n} -\n")));
    (1..20_000).for_each(|n| text.push_str(&format!("-A c{} -j c{n}\n", n - 1)));
    text.push_str("-A INPUT -j c0\n");
    assert_eq!(errors(&format!("{text}COMMIT\n")), []);
    let looped = format!("{text}-A c19999 -j c7\nCOMMIT\n");
    assert_eq!(errors(&looped).len(), 1);
}

#[test]
fn the_mac_match_knows_its_hooks() {
    let mac = "-m mac --mac-source 02:00:00:00:00:01";
    refuses(&format!("*filter\n-A OUTPUT {mac}\nCOMMIT\n"), Code::WrongHook, 2, 14);
    let through = format!("*filter\n:U -\n-A U {mac}\n-A FORWARD -j U\n");
    accepts(&format!("{through}COMMIT\n"), &format!(":U - [0:0]; -A FORWARD -j U; -A U {mac}"));
    refuses(&format!("{through}-A OUTPUT -j U\nCOMMIT\n"), Code::WrongHook, 3, 9);
}

#[test]
fn all_errors_come_at_once_in_order() {
    let text = "*filter\n\
        -A INPUT -s ! 10.0.0.1 -j ACCEPT\n\
        -A INPUT -p tcp --dport 80,443 -m conntrack --ctstate NEW,FOO\n\
        -A INPUT -m owner --uid-owner x\n\
        -A INPUT -m nonsense\n\
        -A INPUT -j TARPIT\n\
        -A INPUT -j NFQUEUE\n\
        -A INPUT -s www.example.net\n\
        -A INPUT -s 2001:db8::1\n\
        -A INPUT -m comment --comment 'a b'\n\
        -A INPUT -j ACCEPT # why\n\
        *nat\n";
    assert_eq!(
        errors(text),
        [
            (Code::BadNegation, 2, 13),
            (Code::BadValue, 3, 25),
            (Code::BadValue, 3, 55),
            (Code::BadValue, 4, 31),
            (Code::UnknownMatch, 5, 13),
            (Code::UnsupportedTarget, 6, 13),
            (Code::UnsupportedTarget, 7, 13),
            (Code::HostName, 8, 13),
            (Code::BadValue, 9, 13),
            (Code::UnexpectedText, 10, 34),
            (Code::UnexpectedText, 11, 20),
            (Code::MissingCommit, 12, 1),
            (Code::MissingCommit, 12, 1),
        ]
    );
}

#[test]
fn columns_count_characters() {
    refuses(
        "*filter\n-A INPUT -m comment --comment \"čšž\" -j NO\nCOMMIT\n",
        Code::MissingChain,
        2,
        40,
    );
    refuses("*filter\n-A INPUT -m comment --comment x\tČ\nCOMMIT\n", Code::UnexpectedText, 2, 33);
}

#[test]
fn hostile_bytes_are_refused_with_their_place() {
    refuses("*filter\n-A INPUT\0 -j DROP\nCOMMIT\n", Code::BadEncoding, 2, 9);
    let names = TableNames::well_known();
    let findings = parse_bytes(b"*filter\n-A \xff\nCOMMIT\n", "f", Family::V4, &names).unwrap_err();
    assert_eq!((findings[0].code, findings[0].line, findings[0].column), (Code::BadEncoding, 2, 4));
    let long = format!("*filter\n-A INPUT -m comment --comment {}\nCOMMIT\n", "x".repeat(2_000));
    refuses(&long, Code::TooLong, 2, 31);
    refuses(&format!("*filter\n{}\nCOMMIT\n", "x ".repeat(6_000)), Code::TooLong, 2, 1);
    refuses(&format!("*filter\n{}\nCOMMIT\n", "-v ".repeat(300)), Code::TooLong, 2, 754);
    let list = vec!["1"; 500].join(",");
    refuses(&format!("*filter\n-A INPUT -s {list} -d {list}\nCOMMIT\n"), Code::TooLong, 2, 1);
    let many = errors(&format!("*filter\n{}COMMIT\n", "-x\n".repeat(5_000)));
    assert_eq!(many.len(), 1_001);
    assert_eq!(many.last().map(|last| last.0), Some(Code::TooMany));
}

#[test]
fn lines_for_the_other_family_are_noted() {
    let parsed = load("*filter\n-6 -A INPUT -s ::1\n-4 -A INPUT\nCOMMIT\n", Family::V4).unwrap();
    assert_eq!(parsed.ruleset.tables[0].chains[0].rules.len(), 1);
    assert_eq!(parsed.findings.len(), 1);
    assert_eq!(parsed.findings[0].severity, Severity::Note);
}

#[test]
fn spans_cover_what_they_name() {
    let text = "*filter\n:U - [0:0]\n[1:2] -A INPUT -m state --state NEW -j U\nCOMMIT\n";
    let parsed = load(text, Family::V4).unwrap();
    let rule = &parsed.ruleset.tables[0].chains[0].rules[0];
    let shown = |span: crate::model::Span| {
        let line = text.lines().nth(span.line as usize - 1).unwrap();
        line[span.column as usize - 1..][..span.len as usize].to_string()
    };
    assert_eq!(shown(rule.span), "-A INPUT -m state --state NEW -j U");
    assert_eq!(shown(rule.target_span), "U");
    assert_eq!(shown(rule.matches[0].span), "state");
}

/// Place, code and remedy of the only error of a line in a table with a user chain U.
#[track_caller]
fn refused(table: &str, line: &str, family: Family) -> (Code, u32, String) {
    let findings =
        load(&format!("*{table}\n:U - [0:0]\n{line}\nCOMMIT\n"), family).expect_err(line);
    let mut errors = findings.into_iter().filter(|one| one.severity == Severity::Error);
    let error = errors.next().unwrap();
    assert_eq!((error.line, errors.next().map(|next| next.message)), (3, None), "{line}");
    let remedy = error.remedy.unwrap_or_else(|| panic!("{line}: {} (no remedy)", error.message));
    (error.code, error.column, remedy)
}

#[test]
fn refusals_of_translations_say_where_and_what_instead() {
    for (line, code, column, remedy) in [
        ("-A U -j SNAT --to-source 192.0.2.1:80", Code::NeedsProtocol, 26, "-p tcp"),
        ("-A U -p tcp -j SNAT --to-source 192.0.2.1:90-80", Code::BadValue, 33, "lower port"),
        ("-A U -j SNAT --to-source 192.0.2.9-192.0.2.1", Code::BadValue, 26, "lower address"),
        ("-A U -j SNAT --to-source 192.0.2.0/24", Code::BadValue, 26, "NETMAP"),
        ("-A U -j SNAT --to-source 192.0.2.1,192.0.2.2", Code::BadValue, 26, "one rule each"),
        ("-A U -p tcp -j SNAT --to-source 192.0.2.1:80-90/100", Code::BadValue, 33, "leave out"),
        (
            "-A U -p tcp -j DNAT --to-destination 192.0.2.1:80-90/0",
            Code::BadValue,
            38,
            "1 to 65535",
        ),
        ("-A U -p tcp -j REDIRECT --to-ports 80:90", Code::BadValue, 36, "LOW-HIGH"),
        ("-A U -p tcp -j REDIRECT --to-ports nosuch", Code::BadValue, 36, "service"),
        ("-A U -j NETMAP --to 192.0.2.0/33", Code::BadValue, 21, "0 to 32"),
        ("-A U -j NETMAP --to www.example.net/24", Code::BadValue, 21, "not resolved"),
    ] {
        let found = refused("nat", line, Family::V4);
        assert_eq!((found.0, found.1), (code, column), "{line}");
        assert!(found.2.contains(remedy), "{line}: {}", found.2);
    }
    let (_, column, remedy) =
        refused("nat", "-A U -j DNAT --to-destination [2001:db8::1", Family::V6);
    assert!(column == 31 && remedy.contains("[ADDRESS]:PORT"), "{remedy}");
}

#[test]
fn translations_know_their_tables_and_hooks() {
    let (code, column, remedy) = refused("filter", "-A INPUT -j MASQUERADE", Family::V4);
    assert_eq!(
        (code, column, remedy.as_str()),
        (Code::WrongTable, 13, "move the rule to the nat table")
    );
    let (code, ..) = refused("mangle", "-A INPUT -j NOTRACK", Family::V4);
    assert_eq!(code, Code::WrongTable);
    for (table, rules, line) in [
        ("nat", "-A PREROUTING -j SNAT --to-source 192.0.2.1", 2),
        ("nat", "-A INPUT -j DNAT --to-destination 192.0.2.1", 2),
        ("nat", "-N U\n-A U -j MASQUERADE\n-A POSTROUTING -j U\n-A INPUT -j U", 3),
        ("nat", "-N U\n-A U -j REDIRECT\n-A POSTROUTING -j U", 3),
        ("filter", "-N U\n-N V\n-A V -p tcp -j SYNPROXY\n-A U -g V\n-A OUTPUT -j U", 4),
    ] {
        let text = format!("*{table}\n{rules}\nCOMMIT\n");
        let errors = errors(&text);
        assert_eq!(errors.len(), 1, "{text}");
        assert_eq!((errors[0].0, errors[0].1), (Code::WrongHook, line), "{text}");
    }
    // Where nothing gets to, anything may stand.
    assert_eq!(errors("*nat\n-N U\n-A U -j MASQUERADE\nCOMMIT\n"), []);
}

#[test]
fn refusals_about_connections_say_where_and_what_instead() {
    for (line, code, column, remedy) in [
        ("-A U -p udp -j CT --helper H.245", Code::UnsupportedTarget, 28, "allow the connections"),
        ("-A U -p tcp -j CT --helper nosuch", Code::BadValue, 28, "ftp tftp irc sip"),
        ("-A U -p udp -j CT --helper ftp", Code::NeedsProtocol, 28, "-p tcp"),
        ("-A U -j CT --zone 65536", Code::BadValue, 19, "mark"),
        ("-A U -j CT --ctevents new,old", Code::BadValue, 23, "natseqinfo"),
        ("-A U -p udp -j CT --timeout brief", Code::BadValue, 29, "--ct-timeout"),
        ("-A U -p udp -j SYNPROXY", Code::NeedsProtocol, 16, "-p tcp"),
        ("-A U -p tcp -j SYNPROXY --mss 70000", Code::BadValue, 31, "65535"),
        ("-A U -m connlabel --label web", Code::BadValue, 27, "connlabel.conf"),
        (
            "-A U -m connbytes --connbytes 5:4 --connbytes-dir both --connbytes-mode bytes",
            Code::BadValue,
            31,
            "lower number",
        ),
        (
            "-A U -m connbytes --connbytes 5 --connbytes-dir in --connbytes-mode bytes",
            Code::BadValue,
            49,
            "original reply both",
        ),
    ] {
        let found = refused("raw", line, Family::V4);
        assert_eq!((found.0, found.1), (code, column), "{line}");
        assert!(found.2.contains(remedy), "{line}: {}", found.2);
    }
    let (code, column, remedy) = refused("raw", "-A U -p tcp -j CT --helper irc", Family::V6);
    assert!(code == Code::BadValue && column == 28 && remedy.contains("IPv6"), "{remedy}");
}

#[test]
fn what_is_refused_for_good_says_why_and_where() {
    for (line, column) in [
        ("-A INPUT -m socket --transparent -j DROP", 13),
        ("-A INPUT -s 192.0.2.1 -m cgroup --path x", 26),
        ("-A PREROUTING -p tcp -j TPROXY --on-port 5", 25),
        ("-A INPUT -j NFQUEUE --queue-num 0", 13),
        ("-A FORWARD -m geoip --src-cc AT", 15),
    ] {
        let table = if line.contains("PREROUTING") { "mangle" } else { "filter" };
        let findings = load(&format!("*{table}\n{line}\nCOMMIT\n"), Family::V4).unwrap_err();
        let error = findings.iter().find(|one| one.severity == Severity::Error).unwrap();
        assert!(error.message.contains("is not supported: "), "{line}: {error:?}");
        assert!(error.remedy.is_some(), "{line}");
        assert_eq!((error.line, error.column), (2, column), "{line}: {error:?}");
    }
}
