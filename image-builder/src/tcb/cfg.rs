//! Conditional compilation: which `#[cfg]` holds for one crate in the image (The Rust Reference, "Conditional compilation").

use std::collections::BTreeSet;
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Lit, Meta, Token};

/// The options that are set for a crate, such as `unix` or `feature = "alloc"`.
#[derive(Clone, Debug, Default)]
pub struct Cfg {
    set: BTreeSet<(String, Option<String>)>,
}

impl Cfg {
    /// From the lines of `rustc --print cfg` and the crate's features.
    pub fn parse<'a>(printed: &str, features: impl IntoIterator<Item = &'a str>) -> Self {
        let option = |line: &str| match line.split_once('=') {
            Some((name, value)) => (name.trim().to_owned(), Some(value.trim().trim_matches('"').to_owned())),
            None => (line.trim().to_owned(), None),
        };
        let mut set: BTreeSet<_> =
            printed.lines().filter(|line| !line.trim().is_empty()).map(option).collect();
        set.extend(features.into_iter().map(|name| ("feature".to_owned(), Some(name.to_owned()))));
        Self { set }
    }

    /// Whether code with these attributes is compiled. What cannot be understood counts as compiled.
    pub fn holds_for(&self, attributes: &[Attribute]) -> bool {
        let own = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
        own.filter_map(|attribute| attribute.parse_args::<Meta>().ok()).all(|meta| self.holds(&meta))
    }

    /// Whether a condition holds.
    pub fn holds(&self, meta: &Meta) -> bool {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match meta {
            Meta::Path(_) => name == "true" || self.set.contains(&(name, None)),
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(value), .. }) => {
                    self.set.contains(&(name, Some(value.value())))
                }
                _ => true,
            },
            Meta::List(list) => {
                let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
                    return true;
                };
                match name.as_str() {
                    "all" => parts.iter().all(|part| self.holds(part)),
                    "any" => parts.iter().any(|part| self.holds(part)),
                    "not" => !parts.iter().any(|part| self.holds(part)),
                    _ => true,
                }
            }
        }
    }
}
