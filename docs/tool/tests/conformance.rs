//! The page, the lists and the sources agree; and what the tool takes for a disagreement.

use obol_docs::{Answer, Conformance, Document, Kind, PAGE, root, scan};

#[test]
fn page_lists_and_sources_agree() {
    let conformance = Conformance::read(root()).expect("lists and sources");
    let problems = conformance.problems();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let page = std::fs::read_to_string(root().join(PAGE)).expect("the page");
    assert!(
        page == conformance.page(),
        "{PAGE} is not what the sources say: cargo run -p obol-docs"
    );
}

const LIST: &str = r#"
title = "A document"
url = "https://example.com"
["1"]
title = "A section"
1 = { must = "do it" }
2 = { should-not = "do that", exception = "it is fun" }
3 = { same = "doc 1-1" }
4 = { note = "history" }
"#;

fn problems(source: &str) -> Vec<String> {
    let document = Document::parse("doc", LIST).expect("a list");
    let annotations = scan("a.rs", source).expect("annotations");
    Conformance::new(vec![document], annotations)
        .problems()
        .to_vec()
}

const CODE: &str = "//= doc 1-1\npub(crate) const fn code() {}\n";
const TEST: &str = "//= test doc 1-1\n#[test]\nfn shows() {}\n";

#[test]
fn code_and_test_satisfy_an_entry() {
    assert!(problems(&format!("{CODE}{TEST}")).is_empty());
}

#[test]
fn an_entry_without_code_or_test_is_found() {
    assert_eq!(
        problems(""),
        ["doc 1-1 has neither code, test nor exception"]
    );
    assert_eq!(problems(CODE), ["doc 1-1 has code, but no test"]);
    assert_eq!(problems(TEST), ["doc 1-1 has a test, but no code"]);
}

#[test]
fn an_unknown_id_is_found() {
    let unknown = problems(&format!("{CODE}{TEST}//= doc 2-1\nfn f() {{}}\n"));
    assert_eq!(unknown, ["a.rs:6: no requirement doc 2-1"]);
    let unknown = problems(&format!("{CODE}{TEST}//= other 1-1\nfn f() {{}}\n"));
    assert_eq!(unknown, ["a.rs:6: no requirement other 1-1"]);
}

#[test]
fn an_entry_that_asks_nothing_is_not_annotated() {
    let of_note = problems(&format!("{CODE}{TEST}//= doc 1-4\nfn f() {{}}\n"));
    assert_eq!(
        of_note,
        ["doc 1-4 asks nothing of its own, but is annotated"]
    );
}

#[test]
fn a_test_annotation_needs_a_test() {
    let error = scan("a.rs", "//= test doc 1-1\nfn helper() {}\n").expect_err("no test");
    assert_eq!(error, "a.rs:1: there is no test below");
    assert!(scan("a.rs", "//= https://example.com\nfn f() {}\n").is_err());
}

#[test]
fn annotations_know_their_item() {
    let source = "
//= doc 1-1
/// Documented.
#[must_use]
pub fn above(&self) {
    if true {
        //= doc 1-2
        call();
    }
}
//= doc 1-1
const LIMIT: u32 = 1;
    //= test doc 1-1 1-2
    #[tokio::test]
    async fn shows() {}
";
    let found = scan("a.rs", source).expect("annotations");
    let items: Vec<&str> = found.iter().map(|a| a.item.as_str()).collect();
    assert_eq!(items, ["above()", "above()", "LIMIT", "shows()"]);
    assert_eq!(found[3].kind, Kind::Test);
    assert_eq!(found[3].ids, ["1-1", "1-2"]);
}

#[test]
fn a_list_counts_without_a_gap() {
    assert!(Document::parse("doc", LIST).is_ok());
    let gap = LIST.replace("4 = {", "5 = {");
    assert!(Document::parse("doc", &gap).is_err());
    let level = LIST.replace("must =", "might =");
    assert!(Document::parse("doc", &level).is_err());
    let two = LIST.replace(r#"{ must = "do it" }"#, r#"{ must = "a", should = "b" }"#);
    assert!(Document::parse("doc", &two).is_err());
}

#[test]
fn sections_are_in_the_order_of_the_document() {
    let text = r#"
title = "t"
url = "u"
["2.10"]
title = "c"
1 = { must = "x" }
["A"]
title = "d"
1 = { must = "x", gap = "y" }
["2.9.1"]
title = "b"
1 = { must = "x" }
["2.9"]
title = "a"
1 = { must = "x" }
"#;
    let document = Document::parse("doc", text).expect("a list");
    let numbers: Vec<&str> = document
        .sections
        .iter()
        .map(|s| s.number.as_str())
        .collect();
    assert_eq!(numbers, ["2.9", "2.9.1", "2.10", "A"]);
    let last = document.requirements().last().expect("one");
    assert_eq!(last.answer, Answer::Gap("y".to_owned()));
}

#[test]
fn sentences_with_key_words_are_counted_by_section() {
    let text = "\
Table of Contents

   1. Introduction ..................................................3
   1.1. More . . . . . . . . . . . . . . . . . . . . . . . . . . . .  4

1.  Introduction

   It MUST be so.  It must not.  A MUST_NOT is no word, and a node SHOULD
   go on

Somebody                     Standards Track                    [Page 1]
\u{c}
RFC 9999                      A Document                    January 2026

   to do this (or that).  REQUIRED is what is MUST NOT.

1.1.  More

   o  Field - MUST be zero;
      MUST be ignored.

Appendix A.  Last

   It is RECOMMENDED.
";
    let counts: Vec<_> = obol_docs::count(text).into_iter().collect();
    let want = [("1", 3), ("1.1", 1), ("A", 1)];
    assert_eq!(counts, want.map(|(section, n)| (section.to_owned(), n)));
}
