//! The interfaces that programs depend on: the crate's public items and the declarations of
//! ucache.h, as lists in this folder. A removed line breaks programs; an added one must be
//! intended. (In C a new status, or a new field at the end of `struct ucache_stats`, changes a line
//! but breaks nothing.)
//!
//! `UCACHE_INTERFACE=write cargo test --test interface` rewrites the lists.

#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/sources.rs"]
mod sources;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use quote::ToTokens;
use syn::{Fields, ImplItem, Item, Type, UseTree, Visibility};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares with the list in `file`, or writes it.
fn compare(file: &str, now: &BTreeSet<String>) {
    let path = root().join("tests").join(file);
    if std::env::var_os("UCACHE_INTERFACE").is_some_and(|value| value == "write") {
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).expect("the list can be written");
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let before: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let gone: Vec<_> = before.difference(now).cloned().collect();
    assert!(
        gone.is_empty(),
        "gone or changed, which breaks programs:\n{}\nif it has to be: a new minor version before 1.0, a major one after \
         (for C: a new soname); UCACHE_INTERFACE=write writes the list anew",
        gone.join("\n")
    );
    let new: Vec<_> = now.difference(&before).cloned().collect();
    assert!(
        new.is_empty(),
        "new:\n{}\nif it is meant for everybody: UCACHE_INTERFACE=write adds it to the list",
        new.join("\n")
    );
}

/// Tokens as one line, with blanks only between words.
fn line(tokens: &impl ToTokens) -> String {
    let mut text = String::new();
    for token in sources::tokens(&tokens.to_token_stream().to_string()) {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if word(text.chars().last()) && word(token.text.chars().next()) {
            text.push(' ');
        }
        text += &token.text;
    }
    // rustfmt adds a comma where it breaks a line.
    text.replace(",)", ")").replace(",>", ">").trim_end_matches(',').to_owned()
}

/// The names that `pub use` in the crate's root makes public.
fn leaves(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, names),
        UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        UseTree::Rename(_) | UseTree::Glob(_) => panic!("the root names each item: {}", line(tree)),
    }
}

fn parsed(file: &Path) -> syn::File {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

const fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The public parts of an item with one of these names.
fn describe(item: &Item, names: &BTreeSet<String>, out: &mut BTreeSet<String>) {
    let public = |visibility, name: &syn::Ident| is_public(visibility) && names.contains(&name.to_string());
    match item {
        Item::Struct(s) if public(&s.vis, &s.ident) => {
            out.insert(format!("struct {}{}", s.ident, line(&s.generics)));
            for field in s.fields.iter().filter(|field| is_public(&field.vis)) {
                let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
                out.insert(format!("struct {}: {name}: {}", s.ident, line(&field.ty)));
            }
            attributes("struct", &s.ident, &s.attrs, out);
        }
        Item::Enum(e) if public(&e.vis, &e.ident) => {
            for variant in &e.variants {
                let mut fields = variant.fields.clone();
                if let Fields::Named(named) = &mut fields {
                    named.named.iter_mut().for_each(|field| field.attrs.clear());
                }
                if let Fields::Unnamed(unnamed) = &mut fields {
                    unnamed.unnamed.iter_mut().for_each(|field| field.attrs.clear());
                }
                out.insert(format!("enum {}: {}{}", e.ident, variant.ident, line(&fields)));
            }
            attributes("enum", &e.ident, &e.attrs, out);
        }
        Item::Type(t) if public(&t.vis, &t.ident) => {
            out.insert(format!("type {}{}={}", t.ident, line(&t.generics), line(&t.ty)));
        }
        Item::Impl(block) => implementation(block, names, out),
        _ => {}
    }
}

/// `derive` and `non_exhaustive`: programs depend on both.
fn attributes(kind: &str, name: &syn::Ident, attributes: &[syn::Attribute], out: &mut BTreeSet<String>) {
    for attribute in attributes {
        if attribute.path().is_ident("non_exhaustive") {
            out.insert(format!("{kind} {name}: non_exhaustive"));
        }
        if attribute.path().is_ident("derive") {
            let _ = attribute.parse_nested_meta(|meta| {
                out.insert(format!("impl {} for {name}", line(&meta.path)));
                Ok(())
            });
        }
    }
}

fn implementation(block: &syn::ItemImpl, names: &BTreeSet<String>, out: &mut BTreeSet<String>) {
    let Type::Path(of) = &*block.self_ty else { return };
    let Some(name) = of.path.segments.last().map(|part| part.ident.to_string()) else { return };
    if !names.contains(&name) {
        return;
    }
    if let Some((_, of, _)) = &block.trait_ {
        out.insert(format!("impl{} {} for {}", line(&block.generics), line(of), line(&block.self_ty)));
    }
    for item in &block.items {
        match item {
            ImplItem::Fn(f) if block.trait_.is_none() && is_public(&f.vis) => {
                out.insert(format!("{name}::{}", line(&f.sig)));
            }
            ImplItem::Const(c) if block.trait_.is_none() && is_public(&c.vis) => {
                out.insert(format!("{name}::const {}: {}", c.ident, line(&c.ty)));
            }
            ImplItem::Type(t) => drop(out.insert(format!("{name}: type {}={}", t.ident, line(&t.ty)))),
            _ => {}
        }
    }
}

/// Sources of the items named by the root: the Rust interface, and re-exports of lower layers.
fn rust_sources() -> Vec<PathBuf> {
    let folders = ["src/api", "src/engine", "src/os"].map(|folder| sources::files(&root().join(folder)));
    let all = folders.into_iter().flatten().chain([root().join("src/error.rs")]);
    all.filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

#[test]
fn the_crates_public_items_are_those_of_the_list() {
    let mut names = BTreeSet::new();
    for item in parsed(&root().join("src/lib.rs")).items {
        match item {
            Item::Use(item) if is_public(&item.vis) => leaves(&item.tree, &mut names),
            _ => {}
        }
    }
    assert!(names.contains("Cache") && names.contains("Error"), "{names:?}");
    let mut found = names.iter().map(|name| format!("use ucache::{name}")).collect();
    for file in rust_sources() {
        parsed(&file).items.iter().for_each(|item| describe(item, &names, &mut found));
    }
    assert!(found.len() > 150, "{found:#?}");
    compare("interface_rust.txt", &found);
}

/// The declarations of a header as the compiler sees them, one a line; `#define`s with their
/// values.
fn declarations(header: &Path) -> BTreeSet<String> {
    let output = Command::new("gcc").args(["-std=c99", "-E", "-dD", "-x", "c"]).arg(header).output();
    let output = output.expect("gcc is there: `make deps` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the header is UTF-8");
    let (mut mine, mut code, mut found) = (false, String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(marker) = line.strip_prefix("# ") {
            mine = marker.contains("ucache.h\"");
        } else if mine && line.starts_with("#define ") {
            found.insert(line.split_whitespace().collect::<Vec<_>>().join(" "));
        } else if mine && !line.starts_with('#') {
            code += line;
            code.push(' ');
        }
    }
    let (mut depth, mut start) = (0, 0);
    for (at, c) in code.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if c == ';' && depth == 0 {
            found.insert(code[start..=at].split_whitespace().collect::<Vec<_>>().join(" "));
            start = at + 1;
        }
    }
    found
}

#[test]
fn what_the_header_declares_is_what_the_list_has() {
    let found = declarations(&root().join("include/ucache.h"));
    assert!(found.iter().any(|line| line.starts_with("int ucache_get(")), "{found:#?}");
    assert!(found.len() > 70, "{found:#?}");
    compare("interface_c.txt", &found);
}
