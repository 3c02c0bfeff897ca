//! Compiles proto/*.proto to Rust, without protoc, and writes a `Debug` of CSI's messages that shows no secret.
//!
//! The specification marks fields that hold secrets (`csi_secret`, extension 1059). A message that has one, or a map of
//! strings in which a kubelet may put a pod's tokens, gets no derived `Debug` but the one written here.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(["csi.proto", "pluginregistration.proto"])?;
    // The encoded form keeps options that prost's own types don't know; they are read from it below.
    let secrets = secret_fields(&compiler.encode_file_descriptor_set())?;
    let set = FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?;

    let mut debugs = String::new();
    let mut redacted = Vec::new();
    for message in set.file.iter().filter(|f| f.package() == "csi.v1").flat_map(|f| &f.message_type) {
        let maps: Vec<&str> = message
            .field
            .iter()
            .filter(|field| {
                let entry = field.type_name().rsplit('.').next().unwrap_or_default();
                let map =
                    |n: &prost_types::DescriptorProto| n.options.as_ref().is_some_and(|o| o.map_entry());
                field.r#type() == Type::Message
                    && message.nested_type.iter().any(|n| n.name() == entry && map(n))
            })
            .map(|field| field.name())
            .collect();
        let hidden = |field: &str| secrets.iter().any(|(m, f)| m == message.name() && f == field);
        if maps.is_empty() && !message.field.iter().any(|f| hidden(f.name())) {
            continue;
        }
        redacted.push(format!("csi.v1.{}", message.name()));
        writeln!(debugs, "impl ::core::fmt::Debug for {} {{", message.name())?;
        writeln!(debugs, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
        writeln!(debugs, "        f.debug_struct({:?})", message.name())?;
        let mut oneofs = Vec::new();
        for field in &message.field {
            let name = field.name();
            if let (Some(index), false) = (field.oneof_index, field.proto3_optional()) {
                let oneof = message.oneof_decl[index as usize].name();
                if !oneofs.contains(&oneof) {
                    writeln!(debugs, "            .field({oneof:?}, &self.{oneof})")?;
                    oneofs.push(oneof);
                }
            } else if hidden(name) {
                writeln!(debugs, "            .field({name:?}, &super::redact::Secret)")?;
            } else if maps.contains(&name) {
                writeln!(debugs, "            .field({name:?}, &super::redact::Map(&self.{name}))")?;
            } else {
                writeln!(debugs, "            .field({name:?}, &self.{name})")?;
            }
        }
        writeln!(debugs, "            .finish()\n    }}\n}}")?;
    }
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("redacted.rs"), debugs)?;
    let list: String = secrets.iter().map(|(m, f)| format!("    ({m:?}, {f:?}),\n")).collect();
    std::fs::write(Path::new(&out).join("secret_fields.rs"), format!("&[\n{list}]\n"))?;

    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .codec_path("crate::telemetry::Codec")
        .skip_debug(&redacted)
        .compile_fds(set)?;
    Ok(())
}

/// The number of the extension `csi_secret` of `google.protobuf.FieldOptions` in csi.proto.
const CSI_SECRET: u64 = 1059;

/// (message, field) of each field marked `csi_secret`.
///
/// `prost_types::FieldOptions` drops extensions, so the path set → file → message → field → options is walked over the
/// encoded form, by the field numbers of descriptor.proto.
fn secret_fields(set: &[u8]) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut found = Vec::new();
    for file in children(set, 1)? {
        for message in children(file, 4)? {
            let name = String::from_utf8(children(message, 1)?.concat())?;
            for field in children(message, 2)? {
                let field_name = String::from_utf8(children(field, 1)?.concat())?;
                for options in children(field, 8)? {
                    if varint_field(options, CSI_SECRET)? == Some(1) {
                        found.push((name.clone(), field_name.clone()));
                    }
                }
            }
        }
    }
    assert!(!found.is_empty(), "csi.proto marks no field as csi_secret: the extension was not read");
    Ok(found)
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, Box<dyn Error>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = prost::encoding::decode_varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Wire::Number(prost::encoding::decode_varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(prost::encoding::decode_varint(&mut bytes)?)?;
                let (value, rest) = bytes.split_at_checked(length).ok_or("cut short")?;
                bytes = rest;
                Wire::Bytes(value)
            }
            other => return Err(format!("descriptor.proto has no field of wire type {other}").into()),
        };
        fields.push((tag >> 3, value));
    }
    Ok(fields)
}

fn children(bytes: &[u8], number: u64) -> Result<Vec<&[u8]>, Box<dyn Error>> {
    let children = fields(bytes)?.into_iter().filter(|(n, _)| *n == number);
    Ok(children.filter_map(|(_, value)| if let Wire::Bytes(b) = value { Some(b) } else { None }).collect())
}

fn varint_field(bytes: &[u8], number: u64) -> Result<Option<u64>, Box<dyn Error>> {
    let found = fields(bytes)?.into_iter().find(|(n, _)| *n == number);
    Ok(found.and_then(|(_, value)| if let Wire::Number(n) = value { Some(n) } else { None }))
}
