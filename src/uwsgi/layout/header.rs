//! Reads a C header as far as the layout of its structs depends on it: comments, blanks and
//! everything unused by the wanted structs and functions are left out.

use std::collections::{BTreeMap, BTreeSet};

/// A `#define`, a prototype, or a declaration that defines a struct, an enum or a type.
#[derive(Debug, Default)]
struct Definition {
    /// The enclosing `#if`s, then its own words.
    words: Vec<String>,
    is_typedef: bool,
    is_macro: bool,
}

/// The definitions of a header.
#[derive(Debug, Default)]
pub(crate) struct Header {
    definitions: Vec<Definition>,
    /// Indices into `definitions`; structs and enums as `struct name`, functions as `name()`.
    by_name: BTreeMap<String, Vec<usize>>,
}

/// The definitions behind some structs and functions.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Their definitions and those that they use, one a line.
    pub(crate) text: String,
    /// Every name in it.
    pub(crate) names: BTreeSet<String>,
}

/// The declaration being read, and the conditions around it.
#[derive(Debug, Default)]
struct Reader {
    header: Header,
    conditions: Vec<String>,
    open: Definition,
    /// Depth of open braces in it.
    depth: usize,
    is_function: bool,
}

impl Header {
    pub(crate) fn read(text: &str) -> Self {
        let mut reader = Reader::default();
        for line in without_comments(text).lines().map(str::trim) {
            match line.strip_prefix('#') {
                Some(directive) => reader.directive(&words(directive)),
                None => words(line).into_iter().for_each(|word| reader.word(word)),
            }
        }
        reader.header
    }

    /// All definitions that the structs and functions with these names depend on.
    pub(crate) fn layout(&self, structs: &[&str], functions: &[&str]) -> Layout {
        let structs = structs.iter().map(|name| format!("struct {name}"));
        let functions = functions.iter().map(|name| format!("{name}()"));
        let mut wanted: Vec<String> = structs.chain(functions).collect();
        let (mut used, mut names) = (BTreeSet::new(), BTreeSet::new());
        while let Some(name) = wanted.pop() {
            for &place in self.by_name.get(&name).into_iter().flatten() {
                if used.insert(place) {
                    self.uses(place, &mut wanted);
                }
            }
        }
        let mut text = String::new();
        for place in used {
            let words = &self.definitions[place].words;
            names.extend(words.iter().filter(|word| is_name(word)).cloned());
            text += &words.join(" ");
            text.push('\n');
        }
        Layout { text, names }
    }

    /// Adds the names that a definition's own layout depends on, not those behind pointers.
    fn uses(&self, place: usize, wanted: &mut Vec<String>) {
        let definition = &self.definitions[place];
        let words = &definition.words;
        for (i, word) in words.iter().enumerate().filter(|(_, word)| is_name(word)) {
            let is_tag = i > 0 && is_tagged(&words[i - 1]);
            let rest = &words[i + 1..];
            if is_tag {
                if is_by_value(rest) {
                    wanted.push(format!("struct {word}"));
                }
                continue;
            }
            let pointed = !definition.is_macro && rest.first().is_some_and(|next| next == "*");
            let is_typedef = |places: &Vec<usize>| places.iter().all(|&p| self.definitions[p].is_typedef);
            if !(pointed && self.by_name.get(word).is_some_and(is_typedef)) {
                wanted.push(word.clone());
            }
        }
    }

    fn add(&mut self, definition: Definition, names: Vec<String>) {
        for name in names {
            self.by_name.entry(name).or_default().push(self.definitions.len());
        }
        self.definitions.push(definition);
    }
}

impl Reader {
    fn directive(&mut self, words: &[String]) {
        let Some(kind) = words.first() else { return };
        let condition = format!("#{}", words.join(" "));
        match kind.as_str() {
            "if" | "ifdef" | "ifndef" => self.conditions.push(condition.clone()),
            "else" | "elif" => {
                if let Some(last) = self.conditions.last_mut() {
                    *last = format!("{last} {condition}");
                }
            }
            "endif" => _ = self.conditions.pop(),
            "define" | "undef" => {
                let mut all = self.conditions();
                all.push(format!("#{kind}"));
                all.extend(words[1..].iter().cloned());
                let definition = Definition { words: all, is_macro: true, is_typedef: false };
                return self.header.add(definition, words.get(1).cloned().into_iter().collect());
            }
            _ => return,
        }
        // Within a struct, a directive is part of it.
        if self.depth > 0 {
            self.open.words.push(format!("#{kind}"));
            self.open.words.extend(words[1..].iter().cloned());
        }
    }

    fn conditions(&self) -> Vec<String> {
        self.conditions.iter().flat_map(|condition| condition.split(' ').map(str::to_owned)).collect()
    }

    fn word(&mut self, word: String) {
        if self.open.words.is_empty() {
            self.open.words = self.conditions();
            self.open.is_typedef = word == "typedef";
        }
        let before = self.open.words.last().cloned().unwrap_or_default();
        match word.as_str() {
            // extern "C" {
            "{" if self.depth == 0 && before.starts_with('"') => return self.open = Definition::default(),
            "{" => {
                self.is_function |= self.depth == 0 && before == ")";
                self.depth += 1;
            }
            // The end of extern "C".
            "}" if self.depth == 0 => return self.open = Definition::default(),
            "}" => self.depth -= 1,
            _ => {}
        }
        let ends = self.depth == 0 && (word == ";" || word == "}" && self.is_function);
        self.open.words.push(word);
        if ends {
            let definition = std::mem::take(&mut self.open);
            let names = if std::mem::take(&mut self.is_function) { Vec::new() } else { defined(&definition) };
            if !names.is_empty() {
                self.header.add(definition, names);
            }
        }
    }
}

/// The names that a declaration defines: of structs, enums, their constants, types, and a function.
fn defined(definition: &Definition) -> Vec<String> {
    let words = &definition.words;
    let mut names = Vec::new();
    let mut in_enum = false;
    for (i, word) in words.iter().enumerate() {
        let before = |n: usize| i.checked_sub(n).map_or("", |at| words[at].as_str());
        match word.as_str() {
            "{" => {
                in_enum = before(1) == "enum" || before(2) == "enum";
                if is_tagged(before(2)) {
                    names.push(format!("struct {}", before(1)));
                }
            }
            "}" => in_enum = false,
            _ if in_enum && matches!(before(1), "{" | ",") => names.push(word.clone()),
            _ => {}
        }
    }
    if definition.is_typedef {
        let at = |i: usize| words.get(i).map_or("", String::as_str);
        let pointer = (0..words.len()).find(|&i| at(i) == "(" && at(i + 1) == "*" && at(i + 3) == ")");
        let end = words.iter().rposition(|word| word == "}").unwrap_or(0);
        let last = words[end..].iter().take_while(|word| *word != "[").filter(|word| is_name(word)).last();
        names.extend(pointer.map(|i| words[i + 2].clone()).or(last.cloned()));
    } else if names.is_empty()
        && let Some(open) = words.iter().position(|word| word == "(").filter(|&open| open > 0)
    {
        names.push(format!("{}()", words[open - 1]));
    }
    names
}

fn is_tagged(word: &str) -> bool {
    matches!(word, "struct" | "union" | "enum")
}

/// Whether one of the declared things in `rest` (the part behind the type) is no pointer.
fn is_by_value(rest: &[String]) -> bool {
    if rest.first().is_some_and(|word| word == "{") {
        return false;
    }
    let end = rest.iter().position(|word| matches!(word.as_str(), ";" | "(" | ")" | "{"));
    rest[..end.unwrap_or(rest.len())].split(|word| word == ",").any(|one| !one.iter().any(|word| word == "*"))
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Splits a line into names, numbers, strings, and single other characters.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if first == '"' || first == '\'' {
            rest[1..].find(first).map_or(rest.len(), |end| end + 2)
        } else if first.is_ascii_alphanumeric() || first == '_' {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        words.push(rest[..len].to_owned());
        rest = rest[len..].trim_start();
    }
    words
}

/// Replaces comments by blanks and joins continued lines.
fn without_comments(text: &str) -> String {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut rest = joined.as_str();
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = rest.find(['/', '"', '\'']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let quote = rest.chars().next().unwrap_or('"');
        let len = if rest.starts_with("/*") {
            out.push(' ');
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            // A string ends on its line.
            let line = rest.find('\n').unwrap_or(rest.len());
            let len = if quote == '/' { 1 } else { rest[1..line].find(quote).map_or(1, |end| end + 2) };
            out.push_str(&rest[..len]);
            len
        };
        rest = &rest[len..];
    }
    out + rest
}
