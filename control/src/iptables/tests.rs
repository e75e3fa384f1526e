//! The parser on small files.

use dataplane::packet::Family;

use super::*;

/// Parses rules of one table and prints them back.
fn round(table: &str, rules: &str, family: Family) -> Result<String, Vec<Finding>> {
    let text = format!("*{table}\n:U - [0:0]\n{rules}\nCOMMIT\n");
    let names = TableNames::well_known();
    let parsed = parse(&text, "test", family, &names)?;
    Ok(print(&parsed.ruleset, &names, None))
}

#[test]
fn lists_expand_in_the_kernels_order() {
    let out = round("filter", "-A INPUT -s 10.0.0.1,10.0.0.2 -d 1.1.1.1,2.2.2.2 -j U", Family::V4);
    let out = out.unwrap();
    assert!(out.contains("-A INPUT -s 10.0.0.1/32 -d 1.1.1.1/32 -j U\n-A INPUT -s 10.0.0.1/32 -d 2.2.2.2/32 -j U\n"), "{out}");
}
