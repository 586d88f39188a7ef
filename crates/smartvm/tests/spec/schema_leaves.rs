//! The leaves of a schema: every path at which a value that isn't an object of ours stands.

use std::collections::BTreeSet;

use serde_json::Value;

/// The paths of all leaves, such as `drives[].rateLimiter.bandwidth.size` and `labels.*`.
pub(crate) fn of_schema(schema: &Value) -> BTreeSet<String> {
    let mut leaves = BTreeSet::new();
    visit(schema, schema, "", &mut leaves);
    leaves
}

fn visit(schema: &Value, root: &Value, path: &str, leaves: &mut BTreeSet<String>) {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix("#/$defs/").expect("a definition");
        return visit(&root["$defs"][name], root, path, leaves);
    }
    if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
        for branch in branches {
            visit(branch, root, path, leaves);
        }
        return;
    }
    let inside = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    let mut inner = false;
    if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
        inner = true;
        for (name, field) in fields {
            visit(field, root, &inside(name), leaves);
        }
    }
    if let Some(other @ Value::Object(_)) = schema.get("additionalProperties") {
        inner = true;
        visit(other, root, &inside("*"), leaves);
    }
    if let Some(items) = schema.get("items") {
        inner = true;
        visit(items, root, &format!("{path}[]"), leaves);
    }
    if !inner {
        leaves.insert(path.to_owned());
    }
}
