//! JSON Schemas (draft 2020-12) of what people write, for editors and for the loader.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::{MicroVmSpec, SmartVmOptions};

/// The schema of [`MicroVmSpec`].
pub fn spec() -> Value {
    of::<MicroVmSpec>()
}

/// The schema of [`SmartVmOptions`].
pub fn options() -> Value {
    of::<SmartVmOptions>()
}

/// The schema of any type of the spec.
pub fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .with_transform(OptionalIsAbsent)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// The interfaces know `absent`, not `null`: takes the null out of what schemars says of an
/// `Option`.
#[derive(Clone)]
struct OptionalIsAbsent;

impl Transform for OptionalIsAbsent {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(fields) = schema.as_object_mut() {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(branches)) = fields.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
        }
        transform_subschemas(self, schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_allows_null() {
        for schema in [spec(), options()] {
            assert!(!schema.to_string().contains("\"null\""));
        }
    }
}
