//! A `Debug` that does not tell: messages with fields marked `[(secret) = true]` lose prost's
//! derived `Debug` and get one that prints `[redacted]` in the place of those fields.
//!
//! prost skips `Debug` for a message *and everything nested in it* (oneofs, messages, enums), so
//! all of those get an impl here too. Any boolean field option named `secret` counts, whichever
//! of our packages declares it.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, OneofDescriptor, Value,
};

/// The messages whose `Debug` is ours.
#[derive(Debug)]
pub(crate) struct Redacted {
    /// Outermost affected messages; what is nested in them follows.
    roots: Vec<MessageDescriptor>,
}

/// Finds every message with a secret field.
pub(crate) fn plan(pool: &DescriptorPool) -> Redacted {
    let with_secrets: Vec<_> = pool
        .all_messages()
        .filter(|message| {
            !message.is_map_entry() && message.fields().any(|field| is_secret(&field))
        })
        .collect();
    let nested = |message: &MessageDescriptor| {
        let mut parent = message.parent_message();
        while let Some(ancestor) = parent {
            if with_secrets.contains(&ancestor) {
                return true;
            }
            parent = ancestor.parent_message();
        }
        false
    };
    let roots = with_secrets
        .iter()
        .filter(|message| !nested(message))
        .cloned()
        .collect();
    Redacted { roots }
}

impl Redacted {
    /// What to tell prost: leading dot, so that nothing else matches by suffix.
    pub(crate) fn skip_debug_paths(&self) -> Vec<String> {
        self.roots
            .iter()
            .map(|message| format!(".{}", message.full_name()))
            .collect()
    }

    /// The impls for one package, to be appended to its generated file.
    pub(crate) fn impls(&self, package: &str) -> Result<String> {
        let mut out = String::new();
        for message in self
            .roots
            .iter()
            .filter(|message| message.package_name() == package)
        {
            message_impls(&mut out, message)?;
        }
        Ok(out)
    }
}

fn is_secret(field: &FieldDescriptor) -> bool {
    field
        .options()
        .extensions()
        .any(|(extension, value)| extension.name() == "secret" && *value == Value::Bool(true))
}

fn message_impls(out: &mut String, message: &MessageDescriptor) -> Result<()> {
    let name = message.name().to_upper_camel_case();
    open_impl(out, &type_path(message.parent_message(), message.name()));
    if message.fields().len() == 0 {
        write!(out, "        f.write_str(\"{name}\")\n    }}\n}}\n")?;
    } else {
        writeln!(out, "        f.debug_struct(\"{name}\")")?;
        let mut oneofs = Vec::new();
        for field in message.fields() {
            match field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic())
            {
                Some(oneof) if oneofs.contains(&oneof) => {}
                Some(oneof) => {
                    debug_field(out, &ident(oneof.name())?, false)?;
                    oneofs.push(oneof);
                }
                None => debug_field(out, &ident(field.name())?, is_secret(&field))?,
            }
        }
        writeln!(out, "            .finish()\n    }}\n}}")?;
    }
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        oneof_impl(out, message, &oneof)?;
    }
    for child in message
        .child_messages()
        .filter(|child| !child.is_map_entry())
    {
        message_impls(out, &child)?;
    }
    for child in message.child_enums() {
        enum_impl(out, &child)?;
    }
    Ok(())
}

fn debug_field(out: &mut String, ident: &str, secret: bool) -> Result<()> {
    let label = ident.trim_start_matches("r#");
    let value = if secret {
        "&format_args!(\"[redacted]\")".to_owned()
    } else {
        format!("&self.{ident}")
    };
    writeln!(out, "            .field(\"{label}\", {value})")?;
    Ok(())
}

fn oneof_impl(
    out: &mut String,
    message: &MessageDescriptor,
    oneof: &OneofDescriptor,
) -> Result<()> {
    open_impl(out, &type_path(Some(message.clone()), oneof.name()));
    writeln!(out, "        match self {{")?;
    for field in oneof.fields() {
        let variant = field.name().to_upper_camel_case();
        let (binding, value) = if is_secret(&field) {
            ("_", "&format_args!(\"[redacted]\")")
        } else {
            ("value", "value")
        };
        writeln!(
            out,
            "            Self::{variant}({binding}) => f.debug_tuple(\"{variant}\").field({value}).finish(),"
        )?;
    }
    writeln!(out, "        }}\n    }}\n}}")?;
    Ok(())
}

fn enum_impl(out: &mut String, descriptor: &EnumDescriptor) -> Result<()> {
    open_impl(
        out,
        &type_path(descriptor.parent_message(), descriptor.name()),
    );
    writeln!(out, "        f.write_str(self.as_str_name())\n    }}\n}}")?;
    Ok(())
}

fn open_impl(out: &mut String, path: &str) {
    out.push_str(&format!(
        "impl ::core::fmt::Debug for {path} {{\n    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n"
    ));
}

/// The Rust path of a type as prost names it, from the root of its package's module.
fn type_path(parent: Option<MessageDescriptor>, name: &str) -> String {
    let mut path = name.to_upper_camel_case();
    let mut parent = parent;
    while let Some(message) = parent {
        path = format!("{}::{path}", message.name().to_snake_case());
        parent = message.parent_message();
    }
    path
}

/// The Rust name of a field. Our protos keep to snake case; anything else would need prost's own
/// renaming rules here.
fn ident(name: &str) -> Result<String> {
    const KEYWORDS: &[&str] = &[
        "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "extern",
        "false", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "match", "mod", "move",
        "mut", "pub", "ref", "return", "static", "struct", "trait", "true", "type", "unsafe",
        "use", "where", "while",
    ];
    if name.to_snake_case() != name {
        bail!("field name {name:?} is not in snake case");
    }
    Ok(if KEYWORDS.contains(&name) {
        format!("r#{name}")
    } else {
        name.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PROTO: &str = r#"
        syntax = "proto3";
        package p.v1;
        import "google/protobuf/descriptor.proto";
        extend google.protobuf.FieldOptions { bool secret = 50901; }
        message Open { string name = 1; }
        message Vault {
          string type = 1;
          bytes key = 2 [(secret) = true];
          oneof by { string label = 3; string pin = 4 [(secret) = true]; }
          message Inner { optional uint32 size = 1; map<string, string> notes = 2 [(secret) = true]; }
          enum Kind { KIND_UNSPECIFIED = 0; }
          Inner inner = 5;
        }
    "#;

    fn plan_of(proto: &str) -> Redacted {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("p.proto"), proto).unwrap();
        let mut compiler = protox::Compiler::new([dir.path()]).unwrap();
        compiler.include_imports(true).open_file("p.proto").unwrap();
        plan(&compiler.descriptor_pool())
    }

    #[test]
    fn only_messages_with_secrets_lose_their_debug() {
        assert_eq!(plan_of(PROTO).skip_debug_paths(), [".p.v1.Vault"]);
    }

    #[test]
    fn everything_nested_in_such_a_message_gets_a_debug_again() {
        let impls = plan_of(PROTO).impls("p.v1").unwrap();
        for path in ["Vault", "vault::By", "vault::Inner", "vault::Kind"] {
            assert!(
                impls.contains(&format!("impl ::core::fmt::Debug for {path} {{")),
                "{impls}"
            );
        }
        assert!(impls.contains(r#".field("type", &self.r#type)"#), "{impls}");
        for secret in ["self.key", "self.notes", "Pin(value)"] {
            assert!(!impls.contains(secret), "{impls}");
        }
        assert_eq!(impls.matches("[redacted]").count(), 3);
    }

    #[test]
    fn another_package_gets_nothing() {
        assert_eq!(plan_of(PROTO).impls("q.v1").unwrap(), "");
    }
}
