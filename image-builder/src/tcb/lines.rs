//! Counts the lines of a source file that are really compiled, and the `unsafe` blocks in them.
//!
//! A line counts if it holds a token of code. Comments, documentation and whatever a `#[cfg]` leaves out (tests, other
//! architectures, features that are off) do not, nor do the branches that a `cfg_if!` does not take. What is counted is what the
//! compiler reads, also generic code that nobody calls, and all that the body of a macro chooses from.

use super::cfg::Cfg;
use proc_macro2::{Delimiter, LineColumn, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::Path;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// What a file adds to the code that has to be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Lines that hold code.
    pub lines: usize,
    /// Blocks of `unsafe` code, those in the bodies of macros included.
    pub unsafe_blocks: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.unsafe_blocks += other.unsafe_blocks;
    }
}

/// Counts `text`, the contents of the file at `path`, as it is compiled under `cfg`.
pub fn count(path: &Path, text: &str, cfg: &Cfg) -> Count {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => rust(text, cfg).unwrap_or_else(|| plain(text)),
        Some("s" | "S" | "asm" | "ld") => plain(text),
        // Documentation and data that a macro includes.
        _ => Count::default(),
    }
}

/// Lines that are neither empty nor only a comment.
fn plain(text: &str) -> Count {
    let code = |line: &&str| !line.is_empty() && !line.starts_with("//") && !line.starts_with('#');
    Count { lines: text.lines().map(str::trim).filter(code).count(), unsafe_blocks: 0 }
}

fn rust(text: &str, cfg: &Cfg) -> Option<Count> {
    let file = syn::parse_file(text).ok()?;
    if !cfg.holds_for(&file.attrs) {
        return Some(Count::default());
    }
    let mut left_out = LeftOut { cfg, ranges: Vec::new() };
    left_out.visit_file(&file);
    let mut code = Code { left_out: left_out.ranges, lines: BTreeSet::new(), unsafe_blocks: 0 };
    code.walk(text.parse().ok()?);
    Some(Count { lines: code.lines.len(), unsafe_blocks: code.unsafe_blocks })
}

/// Collects where code stands that `cfg` leaves out.
struct LeftOut<'a> {
    cfg: &'a Cfg,
    ranges: Vec<(LineColumn, LineColumn)>,
}

macro_rules! skip_what_is_left_out {
    ($($visit:ident: $node:ident,)*) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if self.cfg.holds_for(attributes::$visit(node)) {
                visit::$visit(self, node);
            } else {
                let span = node.span();
                self.ranges.push((span.start(), span.end()));
            }
        })*
    };
}

impl<'ast> Visit<'ast> for LeftOut<'_> {
    skip_what_is_left_out! {
        visit_item: Item,
        visit_impl_item: ImplItem,
        visit_trait_item: TraitItem,
        visit_foreign_item: ForeignItem,
        visit_field: Field,
        visit_variant: Variant,
        visit_arm: Arm,
        visit_field_value: FieldValue,
        visit_stmt: Stmt,
        visit_expr: Expr,
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        if node.path.segments.last().is_some_and(|name| name.ident == "cfg_if") {
            self.choose(node.tokens.clone());
        }
    }
}

impl LeftOut<'_> {
    /// The contents of `cfg_if!`: `if #[cfg(…)] { … } else if #[cfg(…)] { … } else { … }`, of which one branch is compiled.
    fn choose(&mut self, tokens: TokenStream) {
        let (mut taken, mut holds) = (false, true);
        for token in tokens {
            let TokenTree::Group(group) = token else { continue };
            match group.delimiter() {
                Delimiter::Bracket => {
                    let condition = syn::parse2::<syn::MetaList>(group.stream());
                    let condition = condition.and_then(|list| list.parse_args::<syn::Meta>());
                    holds = condition.is_ok_and(|condition| self.cfg.holds(&condition));
                }
                _ if taken || !holds => {
                    self.ranges.push((group.span_open().start(), group.span_close().end()));
                    holds = true;
                }
                _ => {
                    taken = true;
                    // In a function, a branch holds statements.
                    if let Ok(items) = syn::parse2::<syn::File>(group.stream()) {
                        self.visit_file(&items);
                    } else if let Ok(block) = syn::parse2::<syn::Block>(TokenTree::from(group).into()) {
                        self.visit_block(&block);
                    }
                }
            }
        }
    }
}

/// The attributes of each kind of node that may carry a `#[cfg]`.
mod attributes {
    use syn::*;

    pub fn visit_item(item: &Item) -> &[Attribute] {
        match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::ExternCrate(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::ForeignMod(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::TraitAlias(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Union(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        }
    }

    pub fn visit_impl_item(item: &ImplItem) -> &[Attribute] {
        match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        }
    }

    pub fn visit_trait_item(item: &TraitItem) -> &[Attribute] {
        match item {
            TraitItem::Const(item) => &item.attrs,
            TraitItem::Fn(item) => &item.attrs,
            TraitItem::Type(item) => &item.attrs,
            TraitItem::Macro(item) => &item.attrs,
            _ => &[],
        }
    }

    pub fn visit_foreign_item(item: &ForeignItem) -> &[Attribute] {
        match item {
            ForeignItem::Fn(item) => &item.attrs,
            ForeignItem::Static(item) => &item.attrs,
            ForeignItem::Type(item) => &item.attrs,
            ForeignItem::Macro(item) => &item.attrs,
            _ => &[],
        }
    }

    pub fn visit_field(node: &Field) -> &[Attribute] {
        &node.attrs
    }

    pub fn visit_variant(node: &Variant) -> &[Attribute] {
        &node.attrs
    }

    pub fn visit_arm(node: &Arm) -> &[Attribute] {
        &node.attrs
    }

    pub fn visit_field_value(node: &FieldValue) -> &[Attribute] {
        &node.attrs
    }

    pub fn visit_stmt(node: &Stmt) -> &[Attribute] {
        match node {
            Stmt::Local(node) => &node.attrs,
            Stmt::Item(node) => visit_item(node),
            Stmt::Expr(node, _) => visit_expr(node),
            Stmt::Macro(node) => &node.attrs,
        }
    }

    /// The expressions on which a `#[cfg]` is usual.
    pub fn visit_expr(node: &Expr) -> &[Attribute] {
        match node {
            Expr::Assign(node) => &node.attrs,
            Expr::Block(node) => &node.attrs,
            Expr::Call(node) => &node.attrs,
            Expr::ForLoop(node) => &node.attrs,
            Expr::If(node) => &node.attrs,
            Expr::Loop(node) => &node.attrs,
            Expr::Macro(node) => &node.attrs,
            Expr::Match(node) => &node.attrs,
            Expr::MethodCall(node) => &node.attrs,
            Expr::Return(node) => &node.attrs,
            Expr::Unsafe(node) => &node.attrs,
            Expr::While(node) => &node.attrs,
            _ => &[],
        }
    }
}

/// Walks tokens and remembers the lines on which they stand.
struct Code {
    left_out: Vec<(LineColumn, LineColumn)>,
    lines: BTreeSet<usize>,
    unsafe_blocks: usize,
}

impl Code {
    fn walk(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            if self.is_left_out(token.span().start()) {
                continue;
            }
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    let mut attribute = tokens.peek().cloned();
                    let inner = matches!(&attribute, Some(TokenTree::Punct(mark)) if mark.as_char() == '!');
                    if inner {
                        let mut ahead = tokens.clone();
                        ahead.next();
                        attribute = ahead.next();
                    }
                    if attribute.is_some_and(|tree| is_documentation(&tree)) {
                        tokens.nth(usize::from(inner));
                    } else {
                        self.lines.insert(mark.span().start().line);
                    }
                }
                TokenTree::Group(group) => {
                    self.lines.insert(group.span_open().start().line);
                    self.walk(group.stream());
                    self.lines.insert(group.span_close().end().line);
                }
                TokenTree::Ident(word) => {
                    self.lines.insert(word.span().start().line);
                    let block = |tree: &TokenTree| matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
                    self.unsafe_blocks += usize::from(word == "unsafe" && tokens.peek().is_some_and(block));
                }
                TokenTree::Literal(literal) => {
                    self.lines.extend(literal.span().start().line..=literal.span().end().line)
                }
                TokenTree::Punct(mark) => {
                    self.lines.insert(mark.span().start().line);
                }
            }
        }
    }

    fn is_left_out(&self, place: LineColumn) -> bool {
        self.left_out.iter().any(|(start, end)| *start <= place && place < *end)
    }
}

/// Comments of documentation are attributes by now.
fn is_documentation(tree: &TokenTree) -> bool {
    let TokenTree::Group(group) = tree else { return false };
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket && matches!(first, Some(TokenTree::Ident(word)) if word == "doc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Count {
        count(Path::new("a.rs"), text, &Cfg::parse("target_arch=\"x86_64\"\nunix\n", ["fast"]))
    }

    #[test]
    fn comments_documentation_and_empty_lines_are_no_code() {
        let text = "//! A.\n\n/// B.\n// C.\nfn f() {\n    /* D\n */\n    g(); // E\n}\n";
        assert_eq!(counted(text), Count { lines: 3, unsafe_blocks: 0 });
    }

    #[test]
    fn what_a_cfg_leaves_out_is_no_code() {
        let text = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n\
                    #[cfg(all(unix, not(target_arch = \"arm\")))]\nfn g() {}\n\
                    #[cfg(any(windows, feature = \"slow\"))]\nfn h() {}\n\
                    #[cfg(feature = \"fast\")]\nfn i() {}\n";
        assert_eq!(counted(text).lines, 4);
        assert_eq!(counted("#![cfg(windows)]\nfn f() {}\n").lines, 0);
        assert_eq!(counted("fn f() {\n    #[cfg(windows)]\n    g(\n    );\n    h();\n}\n").lines, 3);
    }

    #[test]
    fn of_a_choice_one_branch_is_code() {
        let text = "cfg_if::cfg_if! {\n    if #[cfg(windows)] {\n        mod a;\n    } else if #[cfg(unix)] {\n        mod b;\n        \
                    #[cfg(windows)]\n        mod c;\n    } else {\n        mod d;\n    }\n}\n";
        assert_eq!(counted(text).lines, 6);
        let inner = "fn f() {\n    cfg_if! {\n        if #[cfg(windows)] {\n            g();\n        } else {\n            h()\n        }\n    }\n}\n";
        assert_eq!(counted(inner).lines, 8);
    }

    #[test]
    fn strings_of_many_lines_count_and_unsafe_blocks_are_seen_in_macros() {
        let text = "const A: &str = \"a\n\nb\";\nmacro_rules! m { () => { unsafe { f() } } }\nunsafe fn g() {\n    unsafe { h() }\n}\n";
        assert_eq!(counted(text), Count { lines: 7, unsafe_blocks: 2 });
    }

    #[test]
    fn assembly_and_text() {
        assert_eq!(count(Path::new("a.s"), "# a\n\n// b\n  nop\n", &Cfg::default()).lines, 1);
        assert_eq!(count(Path::new("README.md"), "a\nb\n", &Cfg::default()).lines, 0);
    }
}
