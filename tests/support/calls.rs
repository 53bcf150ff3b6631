//! Which folder of the engine calls which: a small resolver over the syntax trees of its files.
//!
//! A method of `Engine` may be defined in any file, so imports say nothing about who calls whom.
//! Here every method call is resolved by the type of its receiver, as far as the function's text
//! tells it: `self`, a parameter, a field, a local with a type or made by `Type::new(..)`. Paths
//! are resolved by the imports and by `Type::method`.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    Expr, FnArg, ImplItem, Item, ItemUse, Pat, Signature, Type, UseTree,
    visit::{self, Visit},
};

/// One file: its folder's rank (greater = higher), its name for messages, its text.
pub(crate) struct File<'a> {
    pub(crate) rank: usize,
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// The types and methods that the files define.
#[derive(Default)]
struct Definitions {
    /// Rank of each method, by type and name.
    methods: BTreeMap<(String, String), usize>,
    /// Ranks of all methods of a name, whatever their type.
    by_name: BTreeMap<String, BTreeSet<usize>>,
    /// Type of a struct's field, by struct and field.
    fields: BTreeMap<(String, String), String>,
}

/// Calls and imports that reach up, as lines for a message. `ranks` gives the rank of a module's
/// first path segment.
pub(crate) fn upward(files: &[File<'_>], ranks: &BTreeMap<&str, usize>) -> Vec<String> {
    let parsed: Vec<_> = files.iter().map(|f| syn::parse_file(f.text).expect("a source is Rust")).collect();
    let mut definitions = Definitions::default();
    for (file, tree) in files.iter().zip(&parsed) {
        definitions.add(file.rank, &tree.items);
    }
    let mut found = Vec::new();
    for (file, tree) in files.iter().zip(&parsed) {
        let mut caller = Caller {
            file,
            ranks,
            definitions: &definitions,
            own: None,
            locals: BTreeMap::new(),
            found: Vec::new(),
        };
        tree.items.iter().filter(|item| !is_test(attributes(item))).for_each(|item| caller.visit_item(item));
        found.extend(caller.found);
    }
    found
}

fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// The name of a type without references, smart pointers and parameters.
fn type_name(t: &Type) -> Option<String> {
    match t {
        Type::Reference(r) => type_name(&r.elem),
        Type::Paren(p) => type_name(&p.elem),
        Type::Path(p) => {
            let last = p.path.segments.last()?;
            let name = last.ident.to_string();
            if !["Arc", "Box", "Option", "Result", "Rc"].contains(&name.as_str()) {
                return Some(name);
            }
            let syn::PathArguments::AngleBracketed(inner) = &last.arguments else { return None };
            inner
                .args
                .iter()
                .find_map(|a| if let syn::GenericArgument::Type(t) = a { type_name(t) } else { None })
        }
        _ => None,
    }
}

impl Definitions {
    fn add(&mut self, rank: usize, items: &[Item]) {
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Struct(s) => {
                    for field in &s.fields {
                        if let (Some(name), Some(of)) = (&field.ident, type_name(&field.ty)) {
                            self.fields.insert((s.ident.to_string(), name.to_string()), of);
                        }
                    }
                }
                Item::Impl(block) if block.trait_.is_none() => {
                    let Some(of) = type_name(&block.self_ty) else { continue };
                    for method in &block.items {
                        if let ImplItem::Fn(f) = method {
                            let name = f.sig.ident.to_string();
                            self.by_name.entry(name.clone()).or_default().insert(rank);
                            self.methods.insert((of.clone(), name), rank);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Methods of the standard library and of other layers that share their name with one of the
/// engine's: a receiver of unknown type is not taken for an engine.
const COMMON: [&str; 28] = [
    "get", "set", "insert", "replace", "clear", "write", "lock", "read", "add", "len", "take", "next",
    "slot", "count", "sync", "stamp", "each", "of", "make", "delete", "hash", "remove", "is_dirty",
    "release", "first", "swap", "word", "used",
];

struct Caller<'a> {
    file: &'a File<'a>,
    ranks: &'a BTreeMap<&'a str, usize>,
    definitions: &'a Definitions,
    /// The type whose `impl` this is.
    own: Option<String>,
    /// Types of parameters and locals, as far as known.
    locals: BTreeMap<String, String>,
    found: Vec<String>,
}

impl Caller<'_> {
    fn report(&mut self, span: proc_macro2::Span, what: &str) {
        self.found.push(format!("{}:{}: {what}", self.file.name, span.start().line));
    }

    /// The type of an expression, if the text tells it.
    fn type_of(&self, e: &Expr) -> Option<String> {
        match e {
            Expr::Path(p) => {
                let name = p.path.get_ident()?.to_string();
                if name == "self" { self.own.clone() } else { self.locals.get(&name).cloned() }
            }
            Expr::Field(f) => {
                let syn::Member::Named(field) = &f.member else { return None };
                let of = self.type_of(&f.base)?;
                self.definitions.fields.get(&(of, field.to_string())).cloned()
            }
            Expr::Reference(r) => self.type_of(&r.expr),
            Expr::Paren(p) => self.type_of(&p.expr),
            Expr::Try(t) => self.type_of(&t.expr),
            Expr::Struct(s) => self.named(&s.path),
            Expr::Call(c) => {
                let Expr::Path(p) = &*c.func else { return None };
                let mut path = p.path.clone();
                path.segments.pop();
                path.segments.pop_punct();
                self.named(&path).filter(|name| name.starts_with(char::is_uppercase))
            }
            _ => None,
        }
    }

    fn named(&self, path: &syn::Path) -> Option<String> {
        let name = path.segments.last()?.ident.to_string();
        if name == "Self" { self.own.clone() } else { Some(name) }
    }

    fn enter(&mut self, signature: &Signature) {
        for input in &signature.inputs {
            if let FnArg::Typed(arg) = input
                && let (Pat::Ident(name), Some(of)) = (&*arg.pat, type_name(&arg.ty))
            {
                let of = if of == "Self" { self.own.clone().unwrap_or_default() } else { of };
                self.locals.insert(name.ident.to_string(), of);
            }
        }
    }

    /// Ranks that the modules of an engine path have: `engine::ops::...` or, in `use`,
    /// `super::...`.
    fn check_path(&mut self, segments: &[String], span: proc_macro2::Span) {
        let Some(at) = segments.iter().position(|s| s == "engine") else { return };
        if let Some(module) = segments.get(at + 1)
            && let Some(&rank) = self.ranks.get(module.as_str())
            && rank > self.file.rank
        {
            self.report(span, &format!("reaches up to {}", segments[at + 1..].join("::")));
        }
    }

    fn check_use(&mut self, tree: &UseTree, before: &mut Vec<String>, span: proc_macro2::Span) {
        match tree {
            UseTree::Path(p) => {
                before.push(p.ident.to_string());
                self.check_use(&p.tree, before, span);
                before.pop();
            }
            UseTree::Group(g) => g.items.iter().for_each(|tree| self.check_use(tree, before, span)),
            UseTree::Name(n) => self.check_path(&[before.clone(), vec![n.ident.to_string()]].concat(), span),
            UseTree::Rename(n) => {
                self.check_path(&[before.clone(), vec![n.ident.to_string()]].concat(), span)
            }
            UseTree::Glob(_) => self.check_path(before, span),
        }
    }
}

impl<'ast> Visit<'ast> for Caller<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.check_use(&item.tree, &mut Vec::new(), item.use_token.span);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        // one may lie inside a function
        let outer = std::mem::replace(&mut self.own, type_name(&block.self_ty));
        visit::visit_item_impl(self, block);
        self.own = outer;
    }

    fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
        let outer = std::mem::take(&mut self.locals);
        self.enter(&f.sig);
        visit::visit_impl_item_fn(self, f);
        self.locals = outer;
    }

    fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
        let outer = std::mem::take(&mut self.locals);
        self.enter(&f.sig);
        visit::visit_item_fn(self, f);
        self.locals = outer;
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        visit::visit_local(self, local);
        let (name, of) = match &local.pat {
            Pat::Ident(name) => (name, local.init.as_ref().and_then(|init| self.type_of(&init.expr))),
            Pat::Type(typed) => match &*typed.pat {
                Pat::Ident(name) => (name, type_name(&typed.ty)),
                _ => return,
            },
            _ => return,
        };
        match of {
            Some(of) => self.locals.insert(name.ident.to_string(), of),
            None => self.locals.remove(&name.ident.to_string()),
        };
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        let rank = match self.type_of(&call.receiver) {
            Some(of) => self.definitions.methods.get(&(of, name.clone())).copied(),
            None if COMMON.contains(&name.as_str()) => None,
            // Any of that name will do: an ambiguous call must not hide one that reaches up.
            None => self.definitions.by_name.get(&name).and_then(|ranks| ranks.last().copied()),
        };
        if rank.is_some_and(|rank| rank > self.file.rank) {
            self.report(call.method.span(), &format!("calls {name}, which is above"));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let segments: Vec<_> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
        if let [.., of, name] = &segments[..] {
            let of = if of == "Self" { self.own.clone().unwrap_or_default() } else { of.clone() };
            let rank = self.definitions.methods.get(&(of, name.clone()));
            if rank.is_some_and(|&rank| rank > self.file.rank) {
                let span =
                    path.path.segments.last().map_or_else(proc_macro2::Span::call_site, |s| s.ident.span());
                self.report(span, &format!("calls {name}, which is above"));
            }
        }
        visit::visit_expr_path(self, path);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.check_path(&segments, first.ident.span());
        }
        visit::visit_path(self, path);
    }
}
