//! Paths that a source imports or names, and circles among modules.

use std::collections::BTreeSet;

use super::sources::{Token, follows, tokens};

/// Every path that starts behind `at`, with the groups of a `use` opened.
fn paths_at(tokens: &[Token], at: usize) -> Vec<Vec<String>> {
    let Some(first) = tokens.get(at) else { return Vec::new() };
    if first.text != "{" {
        let mut rest = vec![Vec::new()];
        if follows(tokens, at + 1, &[":", ":"]) {
            rest = paths_at(tokens, at + 3);
        }
        return rest.into_iter().map(|tail| [vec![first.text.clone()], tail].concat()).collect();
    }
    let (mut depth, mut start, mut found) = (0, false, Vec::new());
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" => (depth, start) = (depth + 1, depth == 0),
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => start = true,
            _ if depth == 1 && start => {
                found.extend(paths_at(tokens, n));
                start = false;
            }
            _ => {}
        }
    }
    found
}

/// The paths from the root of the crate that a source names, and those from its parent as from
/// `parent`.
pub(crate) fn paths(source: &str, parent: &str) -> BTreeSet<Vec<String>> {
    let tokens = tokens(source);
    let mut found = BTreeSet::new();
    for at in 0..tokens.len() {
        if follows(&tokens, at, &["crate", ":", ":"]) {
            found.extend(paths_at(&tokens, at + 3));
        } else if follows(&tokens, at, &["super", ":", ":"]) {
            let from_root = |path: Vec<String>| [vec![parent.to_owned()], path].concat();
            found.extend(paths_at(&tokens, at + 3).into_iter().map(from_root));
        }
    }
    found
}

/// Modules of a folder that import each other, directly or on a way round.
pub(crate) fn circles(mut imports: Vec<(String, BTreeSet<String>)>) -> Vec<String> {
    loop {
        let known: BTreeSet<_> = imports.iter().map(|(module, _)| module.clone()).collect();
        let before = imports.len();
        imports.retain(|(_, uses)| uses.iter().any(|other| known.contains(other)));
        if imports.len() == before {
            return imports.into_iter().map(|(module, _)| module).collect();
        }
    }
}
