//! A document against the schema of its type: every departure, each with its path.
//!
//! This knows exactly what our own types' schemas contain. Ranges and lengths are not its
//! business but [`validate`](crate::validate)'s, which also sees specs that were built rather
//! than read; it looks only at whether a number fits its type. What is wrong is also mended,
//! so that the rest can be judged at the same time.

use serde_json::{Map, Value};

use super::guess::closest;
use super::problem::{Problem, Problems};

/// Everything wrong with the shape of `value`, which is mended on the way: afterwards it has
/// the right shape, with made-up values at the paths of the problems.
pub(super) fn mend(value: &mut Value, schema: &Value) -> Problems {
    let mut walk = Walk {
        definitions: schema.get("$defs").unwrap_or(&Value::Null),
        problems: Problems::default(),
    };
    walk.visit(value, schema, "");
    walk.problems
}

struct Walk<'a> {
    definitions: &'a Value,
    problems: Problems,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, value: &mut Value, schema: &'a Value, path: &str) {
        let schema = self.resolve(schema);
        if let Some(branches) = array(schema, "anyOf") {
            return self.visit_any(value, branches, path);
        }
        if let Some(names) = constants(schema) {
            return self.visit_enum(value, &names, schema, path);
        }
        let Some(kind) = schema.get("type").and_then(Value::as_str) else {
            return;
        };
        if !fits(value, kind) {
            self.wrong(value, schema, path, format!("is {}", describe(value)));
            return;
        }
        match value {
            Value::Object(fields) => self.visit_object(fields, schema, path),
            Value::Array(items) => {
                if let Some(item_schema) = schema.get("items") {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.visit(item, item_schema, &format!("{path}[{index}]"));
                    }
                }
            }
            Value::Number(number) if kind == "integer" => {
                let largest = largest(schema);
                if number.as_u64().is_none_or(|number| number > largest) {
                    let problem = format!("{number} is out of range");
                    self.wrong(value, schema, path, problem);
                }
            }
            _ => {}
        }
    }

    fn visit_object(&mut self, fields: &mut Map<String, Value>, schema: &'a Value, path: &str) {
        let none = Map::new();
        let known = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&none);
        let required = required(schema);
        // TypeScript's `undefined` often arrives as null; for an optional field they are one.
        fields.retain(|name, value| !value.is_null() || !known.contains_key(name));
        for name in &required {
            if !fields.contains_key(*name) {
                let field = known.get(*name).unwrap_or(&Value::Null);
                self.problems.push(Problem::new(
                    join(path, name),
                    "is missing",
                    self.allowed(field),
                ));
                fields.insert((*name).to_owned(), self.stand_in(field));
            }
        }
        let others = schema.get("additionalProperties");
        let names: Vec<String> = fields.keys().cloned().collect();
        for name in names {
            let Some(value) = fields.get_mut(&name) else {
                continue;
            };
            if let Some(field) = known_field(schema, &name) {
                self.visit(value, field, &join(path, &name));
            } else if let Some(other @ Value::Object(_)) = others {
                self.visit(value, other, &join(path, &name));
            } else {
                fields.remove(&name);
                let all = known.keys().map(String::as_str);
                let problem = match closest(&name, all.clone()) {
                    Some(meant) => format!("isn't a known field; did you mean `{meant}`?"),
                    None => "isn't a known field".to_owned(),
                };
                let allowed = all.collect::<Vec<_>>().join(", ");
                self.problems
                    .push(Problem::new(join(path, &name), problem, allowed));
            }
        }
    }

    /// A choice of shapes. Objects are told apart by the required field that only one has.
    fn visit_any(&mut self, value: &mut Value, branches: &'a [Value], path: &str) {
        let branches: Vec<&Value> = branches.iter().map(|branch| self.resolve(branch)).collect();
        let Value::Object(fields) = value else {
            let fitting = branches.iter().find(|branch| {
                branch
                    .get("type")
                    .and_then(Value::as_str)
                    .is_some_and(|kind| fits(value, kind))
            });
            return match fitting {
                Some(branch) => self.visit(value, branch, path),
                None => {
                    let allowed: Vec<_> = branches.iter().map(|one| self.allowed(one)).collect();
                    self.problems.push(Problem::new(
                        path,
                        format!("is {}", describe(value)),
                        allowed.join(", or "),
                    ));
                    *value = self.stand_in(branches[0]);
                }
            };
        };
        let marks: Vec<&str> = branches.iter().flat_map(|one| required(one)).collect();
        let given: Vec<usize> = (0..marks.len())
            .filter(|index| fields.contains_key(marks[*index]))
            .collect();
        if let ([only], true) = (given.as_slice(), marks.len() == branches.len()) {
            return self.visit(value, branches[*only], path);
        }
        let names: Vec<_> = marks.iter().map(|mark| format!("`{mark}`")).collect();
        let problem = if given.is_empty() {
            format!("neither {} is given", names.join(" nor "))
        } else {
            format!("{} exclude each other", names.join(" and "))
        };
        let allowed = format!("exactly one of {}", names.join(" and "));
        self.problems.push(Problem::new(path, problem, allowed));
        *value = self.stand_in(branches[0]);
    }

    fn visit_enum(&mut self, value: &mut Value, names: &[&str], schema: &'a Value, path: &str) {
        let problem = match value.as_str() {
            Some(text) if names.contains(&text) => return,
            Some(text) => {
                let shown: String = text.chars().take(64).collect();
                match closest(text, names.iter().copied()) {
                    Some(meant) => format!("{shown:?} is unknown; did you mean {meant:?}?"),
                    None => format!("{shown:?} is unknown"),
                }
            }
            None => format!("is {}", describe(value)),
        };
        self.wrong(value, schema, path, problem);
    }

    fn wrong(&mut self, value: &mut Value, schema: &'a Value, path: &str, problem: String) {
        self.problems
            .push(Problem::new(path, problem, self.allowed(schema)));
        *value = self.stand_in(schema);
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|name| name.strip_prefix("#/$defs/"))
            .and_then(|name| self.definitions.get(name))
            .unwrap_or(schema)
    }

    /// What a schema allows, in words.
    fn allowed(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        if let Some(names) = constants(schema) {
            return names.join(", ");
        }
        if let Some(branches) = array(schema, "anyOf") {
            let all: Vec<_> = branches.iter().map(|one| self.allowed(one)).collect();
            return all.join(", or ");
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("integer") => {
                let least = schema.get("minimum").and_then(Value::as_u64).unwrap_or(0);
                let most = schema.get("maximum").and_then(Value::as_u64);
                format!(
                    "a whole number from {least} to {}",
                    most.unwrap_or(largest(schema))
                )
            }
            Some("number") => "a number".into(),
            Some("string") => "text".into(),
            Some("boolean") => "true or false".into(),
            Some("array") => match schema.get("items") {
                Some(item) => format!("a list, each item {}", self.allowed(item)),
                None => "a list".into(),
            },
            Some("object") => match required(schema).as_slice() {
                [] => "an object".into(),
                names => format!("an object with at least {}", names.join(", ")),
            },
            _ => "any value".into(),
        }
    }

    /// A value of the right shape, so that the rest of the document can still be judged.
    fn stand_in(&self, schema: &'a Value) -> Value {
        let schema = self.resolve(schema);
        if let Some(names) = constants(schema) {
            return names.first().copied().into();
        }
        if let Some([first, ..]) = array(schema, "anyOf") {
            return self.stand_in(first);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(1.into()),
            Some("string") => "x".into(),
            Some("boolean") => false.into(),
            Some("array") => Value::Array(Vec::new()),
            Some("object") => required(schema)
                .into_iter()
                .filter_map(|name| {
                    Some((name.to_owned(), self.stand_in(known_field(schema, name)?)))
                })
                .collect::<Map<_, _>>()
                .into(),
            _ => Value::Null,
        }
    }
}

/// The path of a field inside `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'));
    if !plain {
        let shown: String = name.chars().take(64).collect();
        format!("{path}[{shown:?}]")
    } else if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn known_field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

fn array<'a>(schema: &'a Value, key: &str) -> Option<&'a [Value]> {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice)
}

fn required(schema: &Value) -> Vec<&str> {
    let names = array(schema, "required").unwrap_or_default();
    names.iter().filter_map(Value::as_str).collect()
}

/// The names of an enumeration, in either of the two forms that schemars gives them.
fn constants(schema: &Value) -> Option<Vec<&str>> {
    if let Some(names) = array(schema, "enum") {
        return names.iter().map(Value::as_str).collect();
    }
    let branches = array(schema, "oneOf")?;
    branches
        .iter()
        .map(|one| one.get("const")?.as_str())
        .collect()
}

fn largest(schema: &Value) -> u64 {
    match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => u8::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => u64::MAX,
    }
}

fn fits(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => kind == "number" || (kind == "integer" && !number.is_f64()),
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
